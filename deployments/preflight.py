"""`failover preflight`: what a runbook's changes will need, looked at now, without running anything."""

from __future__ import annotations

import argparse
import sys

from deployments.authoring import add_inputs, planned
from deployments.exits import Exit


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add preflight."""
    parser = commands.add_parser("preflight", help="look at what a run would need, in 5 s, and change nothing")
    parser.add_argument("runbook", help="a file, or the name of a shipped runbook")
    add_inputs(parser)
    parser.add_argument("--drill", action="store_true", help="look at the drill targets, not the live ones")
    parser.add_argument("--journal", help="the journal: a file or postgresql://… (default: FAILOVER_JOURNAL, else in your state folder)")
    parser.set_defaults(run=run_preflight)


def run_preflight(options: argparse.Namespace) -> int:
    """Print every need with its result; exit 1 when something is not there."""
    from deployments.journal_location import open_journal
    from flows.clock import SystemClock
    from flows.preflight_looks import PATIENCE, World, look, recorded, room
    from flows.runs import known_targets
    from flows.secrets import Secrets
    from runbooks.plan import look_up_in
    from runbooks.references import Reference
    from tasks.clients import Clients

    plan = planned(options, "drill" if options.drill else "live")
    known_targets(plan)  # names every secret that cannot be read
    journal, secrets = open_journal(options.journal), Secrets()
    look_up = look_up_in({}, {})

    def remember(reference: Reference) -> object:
        if reference.scope == "run":
            raise LookupError(f"{reference}: there is no run")
        value = look_up(reference)
        return secrets.learn(value) if reference.secret else value

    world = World(
        build=lambda step: step.action_so_far(remember),
        clients=lambda: Clients(timeout=PATIENCE),
        now=SystemClock().now,
        own=lambda: room(journal),
        recall=lambda: recorded(journal, plan),
    )
    checks = [secrets.clean_model(one) for one in look(plan, world)]
    for one in checks:
        print(f"{one.result:8} {one}")
    count = {result: sum(one.result == result for one in checks) for result in ("problem", "unknown")}
    print(f"{len(checks)} things looked at in {plan.runbook.name} ({plan.mode.value}): {count['problem']} problem(s), {count['unknown']} not known", file=sys.stderr)
    return Exit.not_met if count["problem"] else Exit.met
