"""The key that seals the journal: a file outside of it, so that whoever can write the database cannot forge a row.

`FAILOVER_JOURNAL_KEY_FILE`, else `failover/journal.key` in the user's folder for configuration. Not the state folder:
that holds the journal, and a copy of the one must not bring the other along. The file holds one key a line: the first
one seals, the others only verify (rotation). A key is a line of at least 32 characters.

Must never happen: a second key is made where the first one is only missing, and a shared journal is sealed by two keys
that nobody chose: `current` makes one only at the default place and only for a journal that has no keyed row yet.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from flows.journal_chain import Key

VARIABLE = "FAILOVER_JOURNAL_KEY_FILE"
SHORTEST = 32
MAKE = "(umask 077; openssl rand -hex 32 > FILE)"


class KeyTrouble(Exception):
    """The key cannot be had; says where and why, never what it is."""


class KeyFile:
    """The keys of this process, read when the first one is needed, and then kept."""

    def __init__(self, path: Path | None = None, environ: Mapping[str, str] | None = None) -> None:
        """path: named by a person, else taken from the environment or the default place."""
        environ = os.environ if environ is None else environ
        named = path or (Path(environ[VARIABLE]).expanduser() if environ.get(VARIABLE) else None)
        self.path = named or _default(environ)
        self._may_make = named is None
        self._lock = threading.Lock()
        self._keys: tuple[Key, ...] = ()

    def current(self, known: Callable[[], str | None] = lambda: None) -> Key:
        """The key that seals. known: the id of a key that the journal's rows have already; None when there is none.

        Makes the file (0600) when it is missing at the default place and no row is keyed. Raises KeyTrouble.
        """
        with self._lock:
            if not self._keys:
                if self._may_make and not self.path.exists():
                    self._make(known())
                self._keys = self._read()
            return self._keys[0]

    def find(self, key: str) -> Key | None:
        """A key by its id; None when it is not in the file, or there is no file that can be read."""
        try:
            with self._lock:
                self._keys = self._keys or self._read()
        except KeyTrouble:
            return None
        return next((one for one in self._keys if one.id == key), None)

    def _read(self) -> tuple[Key, ...]:
        try:
            lines = [line.strip() for line in self.path.read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or "it is no text"
            raise KeyTrouble(f"journal key {self.path}: cannot be read ({why}); copy it here, or make one with {MAKE}") from None
        wanted = [line for line in lines if line and not line.startswith("#")]
        if not wanted or any(len(line) < SHORTEST for line in wanted):
            raise KeyTrouble(f"journal key {self.path}: is not one; expected a line of at least {SHORTEST} characters for each key")
        return tuple(Key(line.encode()) for line in wanted)

    def _make(self, known: str | None) -> None:
        if known is not None:
            raise KeyTrouble(
                f"journal key {self.path}: is missing, and the journal is sealed with key '{known}'; copy that file here, "
                f"name it with {VARIABLE}, or go on with a new one: {MAKE.replace('FILE', str(self.path))}"
            )
        fresh = self.path.with_name(f".{self.path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
                file.write(secrets.token_hex(32) + "\n")
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(fresh, self.path)  # whole, and never over the one that another process made at the same time
            except FileExistsError:
                pass
            finally:
                fresh.unlink()
        except OSError as error:
            raise KeyTrouble(
                f"journal key {self.path}: cannot be made ({error.strerror}); name another place with {VARIABLE}, made with {MAKE}"
            ) from None


def _default(environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "failover" / "journal.key"
