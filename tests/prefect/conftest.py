"""One Prefect server and one `failover serve` for the whole session; actions of a third party whose world is a folder."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from deployments.prefect_server import Server, child_environment, start
from flows.events import Event
from flows.journal_sqlite import SqliteJournal
from flows.state import ExecutionState, fold

HERE = Path(__file__).parent
PLUGIN = HERE / "plugin"
RUNBOOKS = HERE / "runbooks"
os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="prefect-home-")  # before anything imports Prefect: not the user's
atexit.register(shutil.rmtree, os.environ["PREFECT_HOME"], ignore_errors=True)
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}

Found = TypeVar("Found")


def eventually(look: Callable[[], Found | None], seconds: float = 60.0) -> Found:
    """What `look` gives as soon as it gives something."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not so after {seconds:g} s: {look.__doc__ or look}")


@dataclass
class Run:
    """A flow run, as its API and the journal show it."""

    http: httpx.Client
    id: str
    journal: SqliteJournal
    world: Path

    @property
    def execution(self) -> str:
        from uuid import UUID

        from flows.prefect_flow import execution_of

        return execution_of(UUID(self.id))

    def now(self) -> dict[str, Any]:
        return self.http.get(f"/flow_runs/{self.id}").json()

    def state(self) -> tuple[str, str]:
        now = self.now()
        return now["state_type"], now["state_name"]

    def ended(self, seconds: float = 20.0) -> tuple[str, str]:
        eventually(lambda: self.state()[0] in FINAL, seconds)
        return self.state()

    def message(self) -> str:
        return self.now()["state"]["message"]

    def steps(self) -> dict[str, tuple[str, str]]:
        runs = self.http.post(
            "/task_runs/filter", json={"flow_runs": {"id": {"any_": [self.id]}}, "task_runs": {"subflow_runs": {"exists_": False}}}
        ).json()
        return {run["name"]: (run["state_type"], run["state_name"]) for run in runs}

    def step_spans(self) -> dict[str, tuple[str, str]]:
        runs = self.http.post("/task_runs/filter", json={"flow_runs": {"id": {"any_": [self.id]}}}).json()
        return {run["name"]: (run["start_time"], run["end_time"]) for run in runs}

    def edges(self) -> dict[str, set[str]]:
        """The graph as the UI draws it: node → nodes before it; forms are left out."""
        nodes = self.http.get(f"/flow_runs/{self.id}/graph-v2").json()["nodes"]
        labels = {key: node["label"] for key, node in nodes if node["kind"] == "task-run"}
        return {labels[key]: {labels[p["id"]] for p in node["parents"] if p["id"] in labels} for key, node in nodes if key in labels}

    def children(self) -> list[dict[str, Any]]:
        return self.http.post("/flow_runs/filter", json={"flow_runs": {"parent_flow_run_id": {"any_": [self.id]}}}).json()

    def form(self, old: set[tuple[str, str]] = frozenset()) -> Form:
        """The one open form; `old` are forms that do not count."""

        def look() -> Form | None:
            for child in self.children():
                if child["state_type"] == "PAUSED":
                    found = Form(self.http, child["id"], child["state"])
                    if found.key not in old:
                        return found
            return None

        return eventually(look)

    def events(self) -> list[Event]:
        return [event for _, event in self.journal.read(self.execution)]

    def journaled(self) -> ExecutionState:
        return fold(self.events())

    def effects(self) -> list[str]:
        """Every act that had an effect, in order."""
        path = self.world / "effects"
        return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []

    def settle(self, fact: str) -> None:
        """Let what a step wrote be believed now, however long it takes."""
        path = self.world / fact
        eventually(lambda: path.exists() and path.read_text())
        path.write_text("0")

    def retry(self, *, force: bool = False) -> None:
        """What the UI's Retry does; Prefect's second UI forces it.

        Not forced, HandleFlowTerminalStateTransitions accepts it of a run that has a deployment, and forgets its pauses; forced, no
        rule is asked, and the pauses that it passed stay known.
        Source: prefect 3.8.8, server/ui (retryFlowRun), server/ui-v2 (its retry dialog), server/orchestration/core_policy.py.
        """
        state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Retry from the UI"}
        answer = self.http.post(f"/flow_runs/{self.id}/set_state", json={"state": state, "force": force}).json()
        assert answer["status"] == "ACCEPT", answer

    def cancel(self) -> None:
        """What the UI's Cancel does."""
        state = {"type": "CANCELLING", "name": "Cancelling"}
        self.http.post(f"/flow_runs/{self.id}/set_state", json={"state": state, "force": False})

    def pid(self) -> int:
        """The process that carries it out now."""
        from flows.events import ExecutionStarted, Resumed

        return next(event.pid for event in reversed(self.events()) if isinstance(event, ExecutionStarted | Resumed))


@dataclass
class Form:
    """A paused child flow run."""

    http: httpx.Client
    id: str
    state: dict[str, Any]

    @property
    def key(self) -> tuple[str, str]:
        """Which pause of which child it is."""
        return self.id, self.state["state_details"]["pause_key"]

    def resume(self, **values: Any) -> str:
        body = {"run_input": values} if values else {}
        return self.http.post(f"/flow_runs/{self.id}/resume", json=body).json()["status"]

    def schema(self) -> dict[str, Any]:
        return self.http.get(f"/flow_runs/{self.id}/input/{self.state['state_details']['run_input_keyset']['schema']}").json()

    def text(self) -> str:
        return self.http.get(f"/flow_runs/{self.id}/input/{self.state['state_details']['run_input_keyset']['description']}").json()

    def now(self) -> tuple[str, str]:
        run = self.http.get(f"/flow_runs/{self.id}").json()
        return run["state_type"], run["state_name"]


@dataclass
class Prefect:
    """The server of the session: it can be killed and started again."""

    server: Server
    http: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.http = httpx.Client(base_url=self.server.api, timeout=30, trust_env=False)

    def kill(self) -> None:
        os.kill(self.server.pid, signal.SIGKILL)
        eventually(lambda: not self.server.alive or None)

    def start(self) -> None:
        self.server = start(Path(self.server.home), self.server.port)


@dataclass
class Serve:
    """A running `failover serve`."""

    process: subprocess.Popen[bytes]
    log: Path
    journal: Path

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def said(self) -> str:
        return self.log.read_text(errors="replace")


@contextmanager
def serving(folder: Path, journal: Path, log: Path, *more: str, **environment: str) -> Iterator[Serve]:
    """A `failover serve` that ends with the test, also when that fails."""
    found = serve(folder, journal, log, *more, **environment)
    try:
        yield found
    finally:
        if found.process.poll() is None:
            found.process.terminate()
            try:
                found.process.wait(60)
            except subprocess.TimeoutExpired:
                found.process.kill()
                found.process.wait()


def serve(folder: Path, journal: Path, log: Path, *more: str, **environment: str) -> Serve:
    """Start `failover serve` and wait until it serves, in a folder whose modules are called as ours are."""
    for name in ("tasks", "flows", "runbooks"):
        (log.parent / f"{name}.py").write_text("raise SystemExit('a stranger')\n")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "deployments", "serve", str(folder), "--journal", str(journal), *more],
            env=child_environment(PYTHONPATH=str(PLUGIN), **environment), stdout=output, stderr=output, cwd=log.parent,
        )  # fmt: skip
    found = Serve(process, log, journal)
    eventually(lambda: "\nserving " in found.said() or process.poll() is not None, 90)
    assert process.poll() is None, found.said()
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="package")
def new_home(request: pytest.FixtureRequest) -> Callable[[Path], Path]:
    """Fill a server's home folder with the database of one that started before: migrating takes most of a start."""
    kept = request.config.cache.mkdir("prefect") / version("prefect")
    files = ("prefect.db", "memo_store.toml")
    if not kept.is_dir():
        home = Path(tempfile.mkdtemp(prefix="prefect-first-"))
        start(home, free_port()).stop()
        made = Path(tempfile.mkdtemp(dir=kept.parent))
        for name in files:
            shutil.copy(home / name, made / name)
        made.rename(kept)
        shutil.rmtree(home)

    def fill(home: Path) -> Path:
        home.mkdir(exist_ok=True)
        for name in files:
            shutil.copy(kept / name, home / name)
        return home

    return fill


@pytest.fixture(scope="package")
def prefect(new_home: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    found = Prefect(start(new_home(tmp_path_factory.mktemp("prefect")), free_port()))
    yield found
    found.http.close()
    found.server.stop()


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runbooks that are served, one of them broken."""
    folder = tmp_path_factory.mktemp("runbooks")
    for path in RUNBOOKS.glob("*.yaml"):
        (folder / path.name).write_text(path.read_text())
    (folder / "broken.yaml").write_text("schema: failover/v1\nname: broken\nsteps: []\n")
    return folder


@pytest.fixture(scope="package")
def served(prefect: Prefect, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    place = tmp_path_factory.mktemp("serve")
    with serving(folder, place / "journal" / "journal.db", place / "log", PREFECT_API_URL=prefect.server.api) as found:
        yield found
        assert found.stop() == 2, found.said()  # one runbook is broken, and that was told at the start


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """The folder that the actions of a test change."""
    place = tmp_path / "world"
    place.mkdir()
    return place


@pytest.fixture
def ask(prefect: Prefect, served: Serve, world: Path) -> Iterator[Callable[..., Run]]:
    """Press Run: ask('gated', mode='live', …); what a test leaves running is ended after it."""
    with asking(prefect, served, world) as press:
        yield press


@pytest.fixture(scope="module")
def at_gate(prefect: Prefect, served: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Run, Form]]:
    """A run that waits at its gate, and the form, for tests that only look."""
    with asking(prefect, served, tmp_path_factory.mktemp("world")) as press:
        run = press("gated")
        yield run, run.form()


@contextmanager
def asking(prefect: Prefect, served: Serve, world: Path) -> Iterator[Callable[..., Run]]:
    journal = SqliteJournal(served.journal)
    runs: list[Run] = []

    def press(runbook: str, /, **parameters: Any) -> Run:
        found = prefect.http.post("/deployments/filter", json={"deployments": {"name": {"any_": [runbook]}}}).json()[0]
        values = {"mode": "live", "your_name": "ines", "world": str(world), **parameters}
        answer = prefect.http.post(f"/deployments/{found['id']}/create_flow_run", json={"parameters": values})
        assert answer.status_code == 201, answer.text
        run = Run(prefect.http, answer.json()["id"], journal, Path(values["world"]))
        runs.append(run)
        return run

    yield press
    for run in runs:
        if run.state()[0] not in FINAL:
            run.cancel()
            run.ended()
    journal.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Show what `failover serve` and the Prefect server said, where a test of them failed."""
    report = yield
    known = getattr(item, "funcargs", {})
    if report.failed and isinstance(known.get("served"), Serve):
        report.sections.append(("failover serve", "\n".join(known["served"].said().splitlines()[-60:])))
    if report.failed and isinstance(known.get("prefect"), Prefect):
        log = Path(known["prefect"].server.home) / "server.log"
        report.sections.append(("Prefect server", "\n".join(log.read_text(errors="replace").splitlines()[-60:])))
    return report
