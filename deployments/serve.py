"""Serve runbooks in Prefect."""


def add_commands(commands: object) -> None:
    """Nothing yet."""
