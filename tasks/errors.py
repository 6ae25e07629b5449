"""What may leave an action, beside a defect of ours.

ActionFailed     the world said no, or could not be asked
Revoked          the attempt was taken back: no call of it leaves any more
"""

from __future__ import annotations


class ActionFailed(Exception):
    """The world said no, or could not be asked.

    attempted: what was tried, with real values ('SetDesiredCapacity for "checkout-west"'). code: the provider's own
    code. retry: whether the same call may succeed later (throttled, connection lost); False means asking again is
    pointless. Never holds a secret: build it from names and codes, not from connection strings.
    """

    def __init__(self, reason: str, *, attempted: str = "", code: str = "", retry: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.attempted = attempted
        self.code = code
        self.retry = retry


class Revoked(Exception):
    """A call was stopped right before it left: its attempt is over (late, halted, or the lease is lost)."""
