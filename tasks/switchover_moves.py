"""The moves of a switchover. Must never happen: a promotion while the old primary could still take a write.

`make` looks at everything again right before pg_promote and promotes on that look alone, not on the one it was given.
"""

from __future__ import annotations

from tasks.clients import Clients
from tasks.errors import ActionFailed
from tasks.postgres_facts import promote
from tasks.postgres_host import rebuild, shut_down
from tasks.postgres_link import fork_of, make_slot, set_names
from tasks.postgres_switchover import Move, Switching, Switchover


def make(step: Switchover, move: Move | None, state: Switching, clients: Clients) -> None:
    """Make one move; None makes none."""
    match move:
        case "stop":
            shut_down(step.host, clients)
        case "promote":
            now = step.observe(clients)
            if not now.candidate.in_recovery:
                return  # the one sent before has done it
            if step.move(now) != "promote":
                raise ActionFailed(f"the stop does not hold any more: {step.explain(now)}", code="unfenced", retry=True)
            promote(step.standby, clear_synchronous=True, clients=clients)
        case "reprotect":
            _reprotect(step, state, clients)
        case "names" if step.after.synchronous is not None:
            set_names(step.standby, step.after.synchronous, clients)


def _reprotect(step: Switchover, state: Switching, clients: Clients) -> None:
    """Start the old primary as a standby. It ended before the fork, so `end` is empty: its host refuses if it did not."""
    control = state.host.control
    if control is None:
        return
    fork = fork_of(step.standby, control.timeline, clients)
    if fork is None:
        raise ActionFailed(f"{step.standby.name} never left timeline {control.timeline}, on which {step.primary.name} is")
    if step.after.slot:
        make_slot(step.standby, step.after.slot, clients)
    rebuild(step.host, {"from": step.source, "timeline": control.timeline, "fork": fork}, clients)
