"""The command as people type it: exit codes, answers, and that it needs nothing that may be dead."""

from __future__ import annotations

import argparse
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.cli import parser
from deployments.exits import Exit

ROOT = Path(__file__).parents[2]
MANUAL = """schema: failover/v1
name: by-hand
title: Move it by hand
service: shop
owner: me
objectives: {rto: 30m}
recovered_when: look
steps:
  - id: move
    title: Move the cables
    manual: Move the cables from A to B
    budget: 5m
    on_failure: halt
  - id: look
    manual: Look whether the lights are green
    budget: 1m
    on_failure: halt
"""


def failover(folder: Path, *arguments: str, expect: int = 0, **environ: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "deployments", *arguments], cwd=folder, text=True, stdin=subprocess.DEVNULL,
        check=False, capture_output=True, timeout=60, env=environment(folder, **environ),
    )  # fmt: skip
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


def environment(folder: Path, **more: str) -> dict[str, str]:
    known = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT", "FAILOVER"))}
    return {**known, "FAILOVER_JOURNAL": str(folder / "journal.db"), "PYTHONSAFEPATH": "1", **more}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "by-hand.yaml").write_text(MANUAL)
    return tmp_path


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "deployments", *arguments], cwd=folder, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment(folder),
    )  # fmt: skip


def wait_for(child: subprocess.Popen[str], word: str) -> str:
    said = ""
    for line in child.stdout or ():
        said += line
        if word in line:
            return said
    raise AssertionError(f"it never said {word!r}:\n{said}")


def execution_in(text: str) -> str:
    return re.search(r"execution ([0-9a-f]+)", text)[1]


def test_answers_from_other_processes_carry_a_run_to_its_end(folder: Path) -> None:
    run = start(folder, "run", "by-hand.yaml", "--live", "--as", "ines")
    execution = execution_in(wait_for(run, "GATE move"))
    told = json.loads(failover(folder, "status", execution[:4], "--json"))
    assert told["waiting_for"][0]["gate"] == "move"
    assert "Move the cables" in failover(folder, "status")
    failover(folder, "approve", execution, "move", "--as", "kim")
    wait_for(run, "GATE look")
    failover(folder, "approve", execution, "look", "--as", "kim", "--reason", "green")
    out, _ = run.communicate(timeout=20)
    assert run.returncode == Exit.met, out
    assert "RECOVERED" in out
    assert execution in failover(folder, "list")
    report = json.loads(failover(folder, "report", execution, "--format", "json"))
    assert report["verdict"] == "recovered"
    assert [one["by"] for one in report["answers"]] == ["kim", "kim"]
    assert (folder / "reports" / f"{execution}.md").read_text().startswith("# Move it by hand: recovered")


def test_a_no_ends_the_run_and_says_so_by_its_exit_code(folder: Path) -> None:
    run = start(folder, "run", "by-hand.yaml", "--live")
    execution = execution_in(wait_for(run, "GATE move"))
    failover(folder, "deny", execution, "move", "--as", "kim", "--reason", "no cables")
    out, _ = run.communicate(timeout=20)
    assert run.returncode == Exit.not_met
    assert "no cables" in out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_interrupts_in_good_order_and_resume_goes_on(folder: Path, number: signal.Signals) -> None:
    run = start(folder, "run", "by-hand.yaml", "--live")
    execution = execution_in(wait_for(run, "GATE move"))
    run.send_signal(number)
    out, _ = run.communicate(timeout=20)
    assert run.returncode == Exit.interrupted, out
    again = start(folder, "resume", execution)
    wait_for(again, "GATE move")
    again.kill()
    again.communicate()


def test_a_run_without_a_mode_changes_nothing_and_asks_nobody(folder: Path) -> None:
    out = failover(folder, "run", "by-hand.yaml")
    assert "would ask a person: Move the cables" in out
    assert "WOULD" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "missing.yaml"), ("run", "by-hand.yaml", "-i", "x=1"), ("run", "by-hand.yaml", "-i", "x"),
        ("run", "by-hand.yaml", "--approve", "nothing"), ("run", "by-hand.yaml", "--impact", "yesterday"),
        ("check", "missing.yaml"), ("plan", "nearly"), ("actions", "no.such"), ("status", "ffff"), ("resume", "ffff"),
        ("approve", "ffff", "go"), (),
    ],
)  # fmt: skip
def test_invalid_input_is_exit_2_with_one_clear_word_and_no_traceback(folder: Path, arguments: tuple[str, ...]) -> None:
    out = failover(folder, *arguments, expect=Exit.invalid)
    assert out.strip()
    assert "Traceback" not in out


def test_a_missing_secret_is_told_before_anything_starts(folder: Path) -> None:
    out = failover(folder, "run", "region-failover", "--live", expect=Exit.invalid)
    assert "FAILOVER_LAB_PASSWORD" in out
    assert "no executions" in failover(folder, "list")


def test_an_answer_to_a_question_that_nobody_asks_is_refused(folder: Path) -> None:
    run = start(folder, "run", "by-hand.yaml", "--live")
    execution = execution_in(wait_for(run, "GATE move"))
    assert "there is no gate" in failover(folder, "approve", execution, "nothing", expect=Exit.invalid)
    run.kill()
    run.communicate()


def test_check_says_every_problem_with_its_place(folder: Path) -> None:
    (folder / "bad.yaml").write_text(MANUAL.replace("budget: 5m", "budget: 300").replace("title: Move it", "titel: Move it"))
    out = failover(folder, "check", ".", expect=Exit.invalid)
    assert re.search(r"bad\.yaml:3:1: .*titel", out)
    assert re.search(r"bad\.yaml:\d+:\d+: .*300 is not a duration", out)
    assert "by-hand.yaml: ok" in out


def test_check_refuses_what_no_run_could_plan_and_warns_of_the_rest(folder: Path) -> None:
    (folder / "gone.yaml").write_text(MANUAL.replace("recovered_when: look", "recovered_when: lok"))
    out = failover(folder, "check", "gone.yaml", expect=Exit.invalid)
    assert "gone.yaml:7:17: recovered_when" in out
    assert "ok" not in out.split()
    (folder / "tight.yaml").write_text(MANUAL.replace("budget: 5m", "budget: 5m\n    timeout: 4m"))
    out = failover(folder, "check", "tight.yaml")
    assert "tight.yaml:13:5" in out
    assert "(warning)" in out


def test_plan_prints_the_critical_path_and_a_graph(folder: Path) -> None:
    assert "critical path 6m of 30m" in failover(folder, "plan", "by-hand.yaml")
    assert "move --> look" in failover(folder, "plan", "by-hand.yaml", "--mermaid")
    assert json.loads(failover(folder, "plan", "by-hand.yaml", "--json"))["rto"] == 1800


def test_a_dead_prefect_is_no_obstacle(folder: Path) -> None:
    out = failover(folder, "run", "by-hand.yaml", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert "WOULD" in out


@pytest.mark.parametrize("arguments", [("check", "region-failover"), ("run", "by-hand.yaml"), ("--help",), ("actions",)])
def test_prefect_and_the_cloud_are_not_even_imported(folder: Path, arguments: tuple[str, ...]) -> None:
    script = (
        "import sys; from deployments.cli import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "heavy = {'prefect', 'boto3', 'psycopg', 'httpx', 'kubernetes', 'slack_sdk', 'rich'}\n"
        "heavy |= {'pydantic', 'asyncio', 'yaml', 'sqlite3'} if sys.argv[1] == '--help' else set()\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], cwd=folder, text=True, capture_output=True, check=False,
                          env=environment(folder), timeout=60)  # fmt: skip
    assert done.returncode == 0, done.stderr


def commands_of(found: argparse.ArgumentParser, *name: str) -> Iterator[tuple[tuple[str, ...], set[str]]]:
    """Every command and its options."""
    options = {one for action in found._actions for one in action.option_strings}
    below = [action for action in found._actions if isinstance(action, argparse._SubParsersAction)]
    yield name, options
    for action in below:
        for word, command in action.choices.items():
            yield from commands_of(command, *name, word)


def rows_of(page: str, name: tuple[str, ...]) -> list[str]:
    """The rows of the table that are about a command; its first cell may name several of one family."""
    rows = [(line.split("|")[1], line) for line in page.splitlines() if line.startswith("| `failover ")]
    return [row for cell, row in rows if cell.split("`")[1].split()[1] == name[0] and set(name) <= set(re.findall(r"[\w-]+", cell))]


def test_every_command_is_documented_with_all_its_options() -> None:
    page = (ROOT / "docs" / "command.md").read_text()
    everywhere = "\n".join(line for line in page.splitlines() if not line.startswith("|"))
    missing = []
    for name, options in commands_of(parser()):
        rows = rows_of(page, name) if name else []
        if name and not rows:
            missing.append(" ".join(name))
        told = set(re.findall(r"(?<![\w-])--?\w[\w-]*", "\n".join([everywhere, *rows])))
        missing += [" ".join([*name, one]) for one in sorted(options - told)]
    assert missing == []


def test_the_exit_codes_are_documented() -> None:
    page = (ROOT / "docs" / "command.md").read_text()
    for code in Exit:
        assert re.search(rf"^\| {code.value} \|", page, re.MULTILINE), code


def test_the_action_reference_is_what_the_code_says() -> None:
    from flows.action_reference import reference

    assert (ROOT / "docs" / "actions.md").read_text() == reference(), "run `make docs`"


def test_the_live_view_shows_the_question_and_takes_the_answer(folder: Path) -> None:
    """On a real (pseudo) terminal: the table, the countdown and the gate are shown, and typing answers it."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.execvpe(sys.executable, [sys.executable, "-m", "deployments", "run", "by-hand.yaml", "--live", "--as", "ines"],
                   environment(folder, TERM="xterm", COLUMNS="120", LINES="40"))  # fmt: skip
    screen = read_until(terminal, "approve? y or n")
    assert "left of RTO 30m" in screen
    assert "Move the cables from A to B" in screen
    for expected, typed in (("your name", "y\r"), ("reason", "kim\r"), ("green", "done\r")):
        os.write(terminal, typed.encode())
        read_until(terminal, expected)
    read_until(terminal, "approve? y or n")
    os.write(terminal, b"y\r")
    read_until(terminal, "your name")
    os.write(terminal, b"\r")
    read_until(terminal, "reason")
    os.write(terminal, b"\r")
    screen = read_until(terminal, "report ")
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == Exit.met
    assert "RECOVERED" in screen
    report = json.loads(failover(folder, "report", "--format", "json"))
    assert [(one["by"], one["reason"]) for one in report["answers"]] == [("kim", "done"), ("ines", "")]


def read_until(terminal: int, word: str, seconds: float = 20) -> str:
    said, end = "", time.monotonic() + seconds
    while time.monotonic() < end:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                said += os.read(terminal, 65536).decode("utf-8", "replace")
            except OSError:  # the child has ended
                break
            if word in said:
                return said
    assert word in said, said[-3000:]
    return said
