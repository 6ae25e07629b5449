"""What one step can do: one module per system, every action of one contract (`tasks.contract`)."""
