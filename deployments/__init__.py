"""How failovers are started, and where: the `failover` command, the runner, the lab."""
