"""How long others can delay a step: Prefect, Slack and a provider that fail, beside the same runs with none failing.

    python -m tests.failover.delays --rounds 3 --out /tmp/delays.jsonl

Each run is the command in a process of its own: five changes in a row, each under way for 0.2 s, and beside them, on a
branch of its own, a step that asks the provider. A step's time is from the end of the one before it to its own end, so
whatever holds it up is in it. Kinds are interleaved. In another part a Prefect server is killed while a run that was
started in it is in its second step.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from deployments.lab.addresses import Endpoint
from deployments.lab.slack import TOKEN
from deployments.lab.slack_server import Fault, SlackServer
from flows.events import Event, Status
from flows.journal_sqlite import SqliteJournal
from flows.state import ExecutionState, fold
from tests.tasks.parties import blackhole, closed_port, web

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "tests" / "prefect" / "plugin"
SLOW = ROOT / "tests" / "prefect" / "runbooks" / "slow.yaml"
CHAIN = ("one", "two", "three", "four", "five")
UNDISTURBED = "undisturbed"
HANGS = "beside"
TIMEOUT = 3.0
"""Seconds: of the step that asks the provider."""
HEAD = """schema: failover/v1
name: delays
title: Five steps in a row
service: shop
owner: tests
objectives: {rto: 5m}
recovered_when: five
"""
CONTROL = """uses: postgres.fence
    with:
      node: {host: 127.0.0.1, port: %d, database: shop, user: failover}
      method: {control: {url: "http://127.0.0.1:%d/nodes/east"}}
    gate: {name: go, title: Stop it?}"""
AWS = """uses: aws.autoscaling.scale
    with: {region: eu-west-1, group: web, desired: 3, endpoint: "http://127.0.0.1:%d"}"""


@dataclass(frozen=True)
class Line:
    """A run: seconds by step, and of the step that asked the provider. `bound`: what keeps the delay that small."""

    what: str
    how: str
    bound: str
    spans: Mapping[str, float]
    hung: float | None = None
    timeout: float = TIMEOUT
    table: str = "delays"


@dataclass(frozen=True)
class Case:
    """A kind of run of the command: what is beside it, and how that fails."""

    what: str
    how: str = UNDISTURBED
    bound: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)
    more: str = ""
    """Fields of the runbook before its steps."""
    beside: str = ""
    """The step on a branch of its own, without its id."""
    prepare: Callable[[], None] = lambda: None


@contextlib.contextmanager
def cases() -> Iterator[list[Case]]:
    """All kinds of runs of the command, with what they talk to up."""
    slack = SlackServer(Endpoint("127.0.0.1", 0))
    slack.open()
    told = {"SLACK_API_URL": slack.url, "SLACK_BOT_TOKEN": TOKEN}
    comms = 'comms: {slack: "#incidents"}\n'

    def fails(fault: Fault) -> Callable[[], None]:
        def prepare() -> None:
            slack.workspace.clear()
            slack.suffer(fault)

        return prepare

    no_one, dead = "no step waits for it", f"http://127.0.0.1:{closed_port()}/api"
    its_own = "5 s for the preflight, its own step's timeout, nothing for others"
    stopped = {"state": "stopped", "stays_off": True}
    try:
        with blackhole() as hole, web(lambda _: (200, stopped)) as power, moto_with_a_group() as aws:
            yield [
                Case("Prefect"),
                Case("Prefect", "its server is dead from the start", no_one, {"PREFECT_API_URL": dead}),
                Case("Slack", environ=told, more=comms, prepare=fails(Fault())),
                Case("Slack", "answers after 10 s", no_one, told, comms, prepare=fails(Fault("slow", seconds=10))),
                Case("Slack", "is down", no_one, told, comms, prepare=fails(Fault("down"))),
                Case("power control", beside=CONTROL % (closed_port(), power.port)),
                Case("power control", "never answers", its_own, beside=CONTROL % (closed_port(), hole)),
                Case("AWS", beside=AWS % aws),
                Case("AWS", "never answers", its_own, beside=AWS % hole),
            ]
    finally:
        slack.close()


@contextlib.contextmanager
def moto_with_a_group() -> Iterator[int]:
    """A port where AWS answers and knows the group."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    port = server.get_host_and_port()[1]
    try:
        client = boto3.client("autoscaling", region_name="eu-west-1", endpoint_url=f"http://127.0.0.1:{port}",
                              aws_access_key_id="x", aws_secret_access_key="x")  # fmt: skip
        client.create_launch_configuration(LaunchConfigurationName="web", ImageId="ami-12c6146b", InstanceType="t3.small")
        client.create_auto_scaling_group(AutoScalingGroupName="web", LaunchConfigurationName="web", MinSize=1, MaxSize=6,
                                         DesiredCapacity=3, AvailabilityZones=["eu-west-1a"])  # fmt: skip
        yield port
    finally:
        server.stop()


def runbook_text(case: Case, world: Path) -> str:
    """Five steps in a row, and what is beside them."""
    lines = [f"{HEAD}{case.more}steps:"]
    lines += [f'  - {{id: {name}, uses: sim.touch, with: {{world: "{world}", fact: {name}, takes: 0.2}}, budget: 5s}}' for name in CHAIN]
    if case.beside:
        lines.append(f"  - id: {HANGS}\n    {case.beside}\n    after: []\n    budget: 1s\n    timeout: {TIMEOUT:g}s\n    on_failure: halt")
    return "\n".join(lines) + "\n"


def one_run(case: Case, folder: Path) -> Line:
    """Carry a run of the command out."""
    case.prepare()
    (folder / "delays.yaml").write_text(runbook_text(case, folder))
    known = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT", "FAILOVER", "SLACK", "AWS"))}
    environ = {
        **known, "FAILOVER_JOURNAL": str(folder / "journal.db"), "PYTHONPATH": f"{PLUGIN}:{ROOT}", "PYTHONSAFEPATH": "1",
        "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_EC2_METADATA_DISABLED": "true",
        "XDG_STATE_HOME": str(folder / "state"), "XDG_CONFIG_HOME": str(folder / "config"), **case.environ,
    }  # fmt: skip
    command = [sys.executable, "-m", "deployments", "run", "delays.yaml", "--live", "--plain", "--as", "kim"]
    done = subprocess.run(  # noqa: PLW1510 - its exit is looked at
        [*command, *(["--approve", "go"] if "gate:" in case.beside else [])], cwd=folder, env=environ, text=True, timeout=120,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{case.what} {case.how}: exit {done.returncode}\n{done.stdout}")
    state = fold(_events(folder / "journal.db"))
    return Line(case.what, case.how, case.bound, spans(state), _took(state) if case.beside else None)


def _events(journal: Path) -> list[Event]:
    opened = SqliteJournal(journal)
    try:
        return [event for _, event in opened.read(opened.executions(1)[0].execution)]
    finally:
        opened.close()


def spans(state: ExecutionState) -> dict[str, float]:
    """Give each step's seconds, from the end of the one before it to its own."""
    found, before = {}, state.started.at
    for name in CHAIN:
        record = state.step(name)
        if record.status is not Status.done or record.finished is None:
            raise RuntimeError(f"{name} is {record.status}: {record.detail}")
        found[name] = (record.finished - before).total_seconds()
        before = record.finished
    return found


def _took(state: ExecutionState) -> float:
    record = state.step(HANGS)
    assert record.started is not None
    assert record.finished is not None
    return (record.finished - record.started).total_seconds()


def of_prefect(rounds: int, folder: Path) -> Iterator[Line]:
    """Runs that were started in Prefect: its server lives, and then it is killed while the second step is under way."""
    from tests.prefect.conftest import Prefect, asking, eventually, free_port, serving, start

    runbooks, worlds = folder / "runbooks", folder / "worlds"
    for made in (runbooks, worlds, folder / "home"):
        made.mkdir()
    (runbooks / "slow.yaml").write_text(SLOW.read_text())
    prefect = Prefect(start(folder / "home", free_port()))
    try:
        with serving(runbooks, folder / "journal.db", folder / "log", PREFECT_API_URL=prefect.server.api) as served, \
                asking(prefect, served, worlds) as press:  # fmt: skip
            for how in (UNDISTURBED, "its server is killed in the middle") * rounds:
                world = worlds / str(time.monotonic())
                world.mkdir()
                run = press("slow", world=str(world))
                eventually(lambda run=run: run.journaled().step("two").acting)
                if how != UNDISTURBED:
                    prefect.kill()
                eventually(lambda run=run: run.journaled().finished)
                after = {step: took for step, took in spans(run.journaled()).items() if step != CHAIN[0]}
                yield Line("Prefect, started in it", how, "no step waits for it", after)
                if how != UNDISTURBED:
                    prefect.start()
                run.ended(60)
    finally:
        prefect.http.close()
        prefect.server.stop()


def main() -> None:
    """Measure, and append each run as a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each kind; of those in Prefect 2")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    logging.disable()  # moto's, of every request
    for line in _all(given.rounds):
        with given.out.open("a") as file:
            print(json.dumps(asdict(line)), file=file)
        print(f"{line.what}, {line.how}: {', '.join(f'{step} {took:.3f}' for step, took in line.spans.items())}", flush=True)


def _all(rounds: int) -> Iterator[Line]:
    with cases() as kinds:
        for case in kinds * rounds:
            with tempfile.TemporaryDirectory() as folder:
                yield one_run(case, Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        yield from of_prefect(min(rounds, 2), Path(folder))


if __name__ == "__main__":
    main()
