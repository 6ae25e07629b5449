"""How a plan is carried out: engine, journal, gates, clock, forecast, reports and the Prefect compiler."""
