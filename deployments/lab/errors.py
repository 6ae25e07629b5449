"""What the lab says no with."""

from __future__ import annotations


class LabError(Exception):
    """The lab could not do what was asked; the message says what is so and what to do."""


class Refused(LabError):
    """The lab will not do it in its present state, such as starting a node that was fenced."""
