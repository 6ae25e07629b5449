"""Secrets never leave: a real execution with canaries for secrets, and a search through everything that was written."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from deployments.exits import Exit
from tests.deployments.machines import Machine
from tests.deployments.test_command import execution_in, wait_for
from tests.flows.journals import PostgresPlace
from tests.tasks.parties import Answer, Call, closed_port, web
from tests.tasks.postgres_nodes import Installation, Node, caught_up, streaming, until

BY_ENV, BY_FILE, BROKEN, PASSWORD, JOURNAL, KEY = (
    f"canary-{name}-7d1f5a" for name in ("env", "file", "broken", "password", "journal", "key" * 12)
)
CANARIES = (BY_ENV, BY_FILE, BROKEN, PASSWORD, JOURNAL, KEY)

LEAKING = """\
  - id: refused
    uses: postgres.replication
    with: {standby: "${target.nobody}"}
    budget: 1s
    on_failure: continue
  - id: echoed
    uses: http.smoke_test
    with:
      base: WEB
      rounds: 2
      requests:
        - name: health
          url: /health
          headers: {Authorization: "Bearer ${env.CANARY_ENV}", X-Token: "${file.FILE}"}
          expect: {body: {status: ok}}
    budget: 1s
    on_failure: continue
  - id: illegal
    uses: http.smoke_test
    with:
      base: WEB
      rounds: 1
      requests: [{name: health, url: /health, headers: {X-Token: "${file.BROKEN}"}}]
    budget: 1s
    on_failure: continue
"""
"""Steps that use secrets, fail with them in their errors, and get them back in answers."""
RUNBOOK = """schema: failover/v1
name: leaky
title: Say everything
service: shop
owner: me
objectives: {rto: 30m}
recovered_when: move
targets:
  live:
    standby: {host: HOST, port: PORT, database: postgres, user: failover, password: "${env.CANARY_PASSWORD}"}
    nobody: {host: 127.0.0.1, port: CLOSED, database: postgres, user: failover, password: "${env.CANARY_PASSWORD}"}
steps:
  - id: replication
    uses: postgres.replication
    with: {standby: "${target.standby}"}
    budget: 5s
LEAKING  - {id: move, manual: Move the cables, after: [replication, refused, echoed, illegal], budget: 5m, on_failure: halt}
""".replace("LEAKING", LEAKING)


@pytest.fixture(scope="module")
def nodes(installation: Installation) -> Iterator[tuple[Node, Node, Node]]:
    """A primary with its standby, and a server for the journal."""
    primary = installation.node("east").start()
    standby = installation.node("west", follows=primary).start()
    journal = installation.node("journal", fsync="on").start()
    until(lambda: streaming(primary) and caught_up(primary, standby))
    yield primary, standby, journal
    for node in (primary, standby, journal):
        node.discard()


def make_vault(folder: Path) -> Path:
    """Files with secrets: one to send, one that no header may hold, and the journal's key."""
    folder.mkdir()
    (folder / "token").write_text(BY_FILE)
    (folder / "broken").write_text(f"{BROKEN}\ntwo lines, which no header may have; libraries show them in their errors")
    (folder / "journal.key").write_text(KEY)
    return folder


def vault_environ(vault: Path) -> dict[str, str]:
    return {"CANARY_ENV": BY_ENV, "CANARY_PASSWORD": PASSWORD, "FAILOVER_JOURNAL_KEY_FILE": str(vault / "journal.key")}


def filled_in(text: str, url: str, vault: Path) -> str:
    """The runbook with whom it asks and where its secrets lie."""
    for name, value in (("CLOSED", str(closed_port())), ("WEB", url), ("FILE", str(vault / "token")), ("BROKEN", str(vault / "broken"))):
        text = text.replace(name, value)
    return text


def echo_into(heard: list[str]) -> Answer:
    """A web server's answer that says back what it was sent."""

    def echo(call: Call) -> tuple[int, object]:
        heard.append(str(call.headers))
        return 200, {"status": f"you said {call.headers['Authorization']} and {call.headers['X-Token']}"}

    return echo


@contextmanager
def process_list() -> Iterator[set[bytes]]:
    """Every command line that any process of this machine shows meanwhile."""
    seen: set[bytes] = set()
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.1):
            for entry in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    seen.add(entry.read_bytes())

    thread = threading.Thread(target=look)
    thread.start()
    yield seen
    over.set()
    thread.join()


def carried_out(machine: Machine) -> tuple[str, list[str]]:
    """A whole execution with every command that says something about it; give all that was said."""
    machine.failover("check", "leaky.yaml")
    run = machine.start("run", "leaky.yaml", "--live", "--plain")
    first = wait_for(run, "GATE move")
    execution = execution_in(first)
    said = [machine.failover("resume", execution, expect=Exit.busy)]
    said += [machine.failover(*command) for command in (
        ("status", execution), ("eject", execution),
        ("approve", execution, "move", "--as", "kim"),
    )]  # fmt: skip
    said += [first, run.communicate(timeout=60)[0]]
    assert run.returncode == Exit.met, said[-1]
    said += [machine.failover(*command) for command in (
        ("report", execution), ("report", execution, "--format", "json"), ("export", execution), ("verify-journal",),
    )]  # fmt: skip
    machine.environ["FAILOVER_JOURNAL"] = f"postgresql://failover:{JOURNAL}@127.0.0.1:1/failover"
    said.append(machine.failover("list", expect=Exit.not_met))
    return execution, said


def leaks(texts: dict[str, bytes]) -> list[str]:
    return [f"{canary} in {name}" for name, text in texts.items() for canary in CANARIES if canary.encode() in text]


@pytest.mark.parametrize("where", ["file", "database"])
def test_no_secret_reaches_anything_that_is_written_or_shown(nodes: tuple[Node, Node, Node], tmp_path: Path, where: str) -> None:
    _, standby, server = nodes
    place = PostgresPlace(server)
    machine = Machine(tmp_path / "east", place.address_as("failover", JOURNAL) if where == "database" else str(tmp_path / "journal" / "j.db"), "")
    vault, heard = make_vault(tmp_path / "vault"), list[str]()
    machine.environ |= vault_environ(vault)
    with web(echo_into(heard)) as party, process_list() as seen:
        text = RUNBOOK.replace("HOST", standby.host).replace("PORT", str(standby.port))
        (machine.folder / "leaky.yaml").write_text(filled_in(text, party.url, vault))
        execution, said = carried_out(machine)
    assert BY_ENV in heard[0]
    assert BY_FILE in heard[0]  # they were used, and came back in answers

    texts = {f"output {number}": text.encode() for number, text in enumerate(said)}
    texts |= {f"command line {number}": line for number, line in enumerate(seen)}
    texts |= {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and vault not in path.parents}
    if where == "database":  # tables, indexes, WAL and the server's log
        server.do("CHECKPOINT")
        texts |= {str(path): path.read_bytes() for path in server.data.rglob("*") if path.is_file() and path.name != "postmaster.pid"}
    assert any(execution.encode() in text for name, text in texts.items() if name.endswith(".db"))
    assert len(seen) > 5
    assert leaks(texts) == []
    assert leaks({"a canary": BY_ENV.encode()}) != []

