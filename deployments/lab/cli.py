"""`failover lab …`: bring a lab up, break it, heal it, end it. Imports nothing heavy before a command runs."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .client import Lab
    from .report import TrafficReport
    from .status import LabStatus

OK, NOT, INVALID, INTERRUPTED = 0, 1, 2, 5


def add_commands(parser: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `lab` and its commands to a program's commands; each sets `run`, which returns the exit code."""
    lab = parser.add_parser("lab", help="a two-region world of real servers on this machine, to fail over in")
    commands = lab.add_subparsers(title="commands", required=True, metavar="COMMAND")

    up = _command(commands, "up", _up, "bring a lab up; returns when orders flow")
    up.add_argument("--sync", action="store_true", help="replicate synchronously")
    up.add_argument(
        "--supervise", action="store_true", help="start a killed PostgreSQL again after 1 s, as systemd can"
    )
    up.add_argument("--watchdog", action="store_true", help="nodes that stop themselves when they cannot renew their lease")
    up.add_argument("--rate", type=_rate, default=20.0, metavar="N", help="orders a second (default 20)")
    up.add_argument("--no-traffic", action="store_true", help="no customers yet; `lab traffic start` sends them")

    status = _command(commands, "status", _status, "show what is so")
    status.add_argument("--json", action="store_true")

    break_ = _command(commands, "break", _break, "break a database node")
    break_.add_argument("node", choices=["primary", "east", "west"])
    break_.add_argument("--how", choices=["kill", "freeze", "disconnect"], default="kill",
                        help="kill: its processes die; freeze: they stop; disconnect: the network is silent (default kill)")  # fmt: skip

    _command(commands, "heal", _heal, "end every fault; what was powered off stays off")
    _command(commands, "reset", _reset, "back to the first day")
    _command(commands, "down", _down, "end the lab and remove every trace, also of one that crashed")
    _command(commands, "env", _env, 'print the environment that acts on the lab, for eval "$(failover lab env)"')

    slack = _command(commands, "slack", _slack, "print what was said in the lab's Slack, or make it fail")
    slack.add_argument("--open", action="store_true", help="show it in a browser")
    slack.add_argument("--fault", choices=["none", "slow", "rate-limit", "drop", "down"],
                       help="drop: accept, then close without an answer; down: refuse connections; none ends it")  # fmt: skip
    slack.add_argument("--seconds", type=float, default=10.0, help="of slow answers and of Retry-After (default 10)")

    traffic = _command(commands, "traffic", _traffic, "let customers order, or send them away, or report what they saw")
    traffic.add_argument("what", choices=["start", "stop", "report"], nargs="?", default="report")


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    act: Callable[[Lab, argparse.Namespace], int],
    text: str,
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text)
    command.add_argument("--lab", type=_number, metavar="N", help="which lab, 1 to 255 (default $FAILOVER_LAB, or 77)")
    command.set_defaults(run=lambda given: _run(act, given))
    return command


def _run(act: Callable[[Lab, argparse.Namespace], int], given: argparse.Namespace) -> int:
    from .addresses import number_from_environment
    from .client import Lab
    from .errors import LabError

    try:
        lab = Lab(given.lab or number_from_environment())
    except ValueError as error:
        print(error, file=sys.stderr)
        return INVALID
    try:
        return act(lab, given)
    except LabError as error:
        print(error, file=sys.stderr)
        return NOT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def _up(lab: Lab, given: argparse.Namespace) -> int:
    began = time.monotonic()
    if lab.running:
        return _up_already(lab, given)
    lab.up(sync=given.sync, supervise=given.supervise, watchdog=given.watchdog, rate=given.rate, traffic=not given.no_traffic)
    print(f"lab {lab.number} is up after {time.monotonic() - began:.1f} s")
    _print_addresses(lab)
    return OK


def _up_already(lab: Lab, given: argparse.Namespace) -> int:
    """Say that there is nothing to do, or that what is there is not what was asked for."""
    status = lab.status()
    if status.ready and status.sync == given.sync:
        print(f"lab {lab.number} is up already")
        _print_addresses(lab)
        return OK
    is_so = f"its replication is {'' if status.sync else 'a'}synchronous" if status.ready else "it is not ready"
    print(f"lab {lab.number} is up already, but {is_so}; `failover lab down` ends it", file=sys.stderr)
    return NOT


def _print_addresses(lab: Lab) -> None:
    at = lab.addresses
    rows = [("", "east (us-east-1)", "west (us-west-2)")]
    rows += [("load balancer", str(at.balancer("east")), str(at.balancer("west")))]
    rows += [("group", at.group("east"), at.group("west"))]
    rows += [("PostgreSQL, own side", str(at.own_side("east")), str(at.own_side("west")))]
    for way in ("engine", "service", "replication"):
        rows.append((f"PostgreSQL, {way}", str(at.way("east", way)), str(at.way("west", way))))
    for row in rows:
        print(f"  {row[0]:<24}{row[1]:<22}{row[2]}".rstrip())
    print(f"  {'DNS':<24}{at.dns}  checkout.lab.test")
    print(f"  {'AWS':<24}{at.cloud_url}")
    print(f"  {'control':<24}{at.control_url}")
    print(f"  {'folder':<24}{at.folder}")


def _status(lab: Lab, given: argparse.Namespace) -> int:
    if given.json:
        from dataclasses import asdict

        print(json.dumps(asdict(lab.status()), indent=2))
    else:
        _print_status(lab.status())
    return OK


def _print_status(status: LabStatus) -> None:
    print(f"lab {status.number}: {'ready' if status.ready else 'not ready'}, "
          f"{'synchronous' if status.sync else 'asynchronous'} replication")  # fmt: skip
    for node in status.nodes.values():
        links = ", ".join(f"{way} {state}" for way, state in node.links.items() if state != "open")
        off = ", stays off" if node.stays_off else ""
        print(f"  node {node.node:<6}{node.role:<9}{node.state}{off}" + (f"  links: {links}" if links else ""))
    for region, group in status.groups.items():
        print(f"  fleet {region:<5}{group.in_service} in service of {group.desired} wanted, {group.healthy} healthy")
    print(f"  checkout.lab.test -> {', '.join(status.record)} ({status.serving or 'no region'})")
    running = "running" if status.traffic_running else "stopped"
    print(f"  traffic {running}, {status.traffic_rate:g}/s, {status.traffic_records} orders finished")


def _break(lab: Lab, given: argparse.Namespace) -> int:
    at = lab.break_node(given.node, given.how)
    print(f"{given.node}: {given.how} at {at.isoformat(timespec='milliseconds')}")
    return OK


def _heal(lab: Lab, _given: argparse.Namespace) -> int:
    print("\n".join(lab.heal()) or "nothing was broken")
    return OK


def _reset(lab: Lab, _given: argparse.Namespace) -> int:
    began = time.monotonic()
    lab.reset()
    print(f"lab {lab.number} is as on its first day after {time.monotonic() - began:.1f} s")
    return OK


def _down(lab: Lab, _given: argparse.Namespace) -> int:
    from deployments.demo import end_kept

    from .addresses import DEFAULT_NUMBER

    if lab.number == DEFAULT_NUMBER:
        end_kept()
    left = lab.down()
    for thing in left:
        print(f"left over: {thing}, removed")
    print(f"lab {lab.number} is down")
    return OK


def _env(lab: Lab, _given: argparse.Namespace) -> int:
    for name, value in lab.environment().items():
        print(f"export {name}={shlex.quote(value)}")
    return OK


def _slack(lab: Lab, given: argparse.Namespace) -> int:
    from .slack_page import as_page, as_text

    if given.fault is not None:
        lab.break_slack(given.fault, given.seconds)
        print(f"the lab's Slack: {given.fault}")
        return OK
    channels = lab.slack()
    print("\n\n".join(as_text(name, messages) for name, messages in channels.items() if messages) or "nothing was said yet")
    if given.open:
        import webbrowser

        page = lab.addresses.folder / "slack.html"
        page.write_text(as_page(channels), encoding="utf-8")
        print(f"page {page}")
        if not webbrowser.open(page.as_uri()):
            print("there is no browser here; open that file in one", file=sys.stderr)
    return OK


def _traffic(lab: Lab, given: argparse.Namespace) -> int:
    if given.what == "report":
        from datetime import datetime

        faults = [event["at"] for event in lab.events() if event["event"] == "break"]
        _print_traffic(lab.traffic_report(datetime.fromisoformat(faults[-1]) if faults else None))
    else:
        lab.set_traffic(running=given.what == "start")
    return OK


def _print_traffic(facts: TrafficReport) -> None:
    nodes = ", ".join(f"{node} {count}" for node, count in facts.by_node.items())
    print(f"acknowledged {facts.acknowledged} ({nodes}), given up {facts.given_up}")
    print(
        f"lost {len(facts.missing)}, duplicated {len(facts.duplicated)}, two writers: {'yes' if facts.two_writers else 'no'}"
    )
    if facts.fault:
        down = f"{facts.downtime.total_seconds():.3f} s" if facts.downtime else "not over"
        print(f"fault at {facts.fault.isoformat(timespec='milliseconds')}, longest gap since {down}")
    if facts.fault_to_new_primary:
        print(
            f"first order acknowledged by {facts.new_primary} {facts.fault_to_new_primary.total_seconds():.3f} s after it"
        )


def _number(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 255:
        raise argparse.ArgumentTypeError(f"{text!r} is no lab number; 1 to 255")
    return int(text)


def _rate(text: str) -> float:
    rate = float(text)
    if not 0 < rate <= 1000:
        raise argparse.ArgumentTypeError(f"{text} orders a second: must be above 0, at most 1000")
    return rate


def main() -> int:
    """Run `lab` commands without the rest of the program."""
    parser = argparse.ArgumentParser(prog="python -m deployments.lab.cli")
    add_commands(parser.add_subparsers(required=True))
    given = parser.parse_args()
    code: int = given.run(given)
    return code


if __name__ == "__main__":
    sys.exit(main())
