"""Fill in what is known before a run: inputs and targets. What only the run will know stays a reference."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from runbooks.findings import Findings
from runbooks.paths import Path, entry
from runbooks.references import Reference, found_in, replace, whole

MOST_EXPANDED = 4 << 20
MOST_REFERENCES = 100
_LEFT_OUT = object()


@dataclass(frozen=True)
class Use:
    """A reference that stands somewhere: its path in the file, and whether text stands around it."""

    path: Path
    reference: Reference
    embedded: bool


def texts(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """Every text in a tree of YAML, and every key that looks like a reference."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from texts(item, (*path, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from texts(item, (*path, index))


@dataclass
class Values:
    """The inputs and targets of one mode, and what is noted while they are filled in."""

    inputs: Mapping[str, Any]
    """Answers by name; a name of `questions` that is missing here is not known yet."""
    questions: Collection[str]
    section: str
    """'live' or 'drill'."""
    targets: Mapping[str, Any]
    findings: Findings
    environ: Mapping[str, str] | None = None
    """Where given, what env and file name must be there."""
    used: set[str] = field(default_factory=set)
    """'inputs.x' and 'target.x' that something refers to."""
    _resolved: dict[str, Any] = field(default_factory=dict)
    _left: int = MOST_EXPANDED

    def check_targets(self) -> None:
        """Note what is wrong in the targets, then fill the inputs into them."""
        for name, value in self.targets.items():
            path: Path = ("targets", self.section, name)
            self.check(value, path, {"inputs", "env", "file"})
            self._resolved[name] = self.fill(value, path)

    def check(self, value: Any, path: Path, scopes: Collection[str]) -> tuple[Use, ...]:
        """Note every malformed or unknown reference within a value; give all well-formed ones."""
        uses: list[Use] = []
        self._check_keys(value, path)
        for where, text in texts(value, path):
            if "${" not in text:
                continue
            try:
                found = list(dict.fromkeys(found_in(text)))
            except ValueError as error:
                self.findings.add(where, str(error))
                continue
            if len(found) > MOST_REFERENCES:
                self.findings.add(where, f"holds more than {MOST_REFERENCES} references; split it")
                continue
            for reference in found:
                if reference.scope not in scopes:
                    allowed = ", ".join(sorted(scopes))
                    self.findings.add(where, f"{reference} cannot stand here, only references to {allowed}")
                elif wrong := self._wrong(reference):
                    self.findings.add(where, f"{reference}: {wrong}")
                else:
                    uses.append(Use(where, reference, whole(text) is None))
        return tuple(uses)

    def _check_keys(self, value: Any, path: Path) -> None:
        if isinstance(value, Mapping):
            for key, item in value.items():
                if "${" in key:
                    self.findings.add((*path, key), "a reference stands in a value, never in a name", key=True)
                self._check_keys(item, (*path, key))
        elif isinstance(value, list | tuple):
            for index, item in enumerate(value):
                self._check_keys(item, (*path, index))

    def _wrong(self, reference: Reference) -> str | None:
        name = reference.path[0]
        if reference.scope == "inputs":
            self.used.add(f"inputs.{name}")
            if name not in self.questions:
                return f"there is no such input{self.findings.names.nearest(name, self.questions)}"
            return "an input has no fields; write ${inputs." + name + "}" if len(reference.path) > 1 else None
        if reference.scope == "target":
            self.used.add(f"target.{name}")
            return self._wrong_target(reference)
        if self.environ is not None and reference.scope == "env" and name not in self.environ:
            return f"the environment has no variable {name}; set it before the run"
        if self.environ is not None and reference.scope == "file" and not FilePath(name).is_file():
            return f"there is no file {name}"
        return None

    def _wrong_target(self, reference: Reference) -> str | None:
        value: Any = self.targets
        for index, part in enumerate(reference.path):
            try:
                value = entry(value, part)
            except LookupError:
                near = self.findings.names.nearest(part, value if isinstance(value, Mapping) else ())
                if index:
                    return f"'{reference.path[index - 1]}' has no '{part}'{near}"
                return f"targets.{self.section} has no '{part}'" + (near or f"; add it under targets.{self.section}")
        return None

    def fill(self, value: Any, path: Path) -> Any:
        """The value with inputs and targets in place of their references; bad references stay as they are.

        An entry that is nothing but an empty optional input is left out of its mapping or list.
        """
        filled = self._fill(value, path)
        return None if filled is _LEFT_OUT else filled

    def _fill(self, value: Any, path: Path) -> Any:
        if isinstance(value, Mapping):
            entries = {key: self._fill(item, (*path, key)) for key, item in value.items()}
            return {key: item for key, item in entries.items() if item is not _LEFT_OUT}
        if isinstance(value, list | tuple):
            items = [self._fill(item, (*path, index)) for index, item in enumerate(value)]
            return [item for item in items if item is not _LEFT_OUT]
        if not isinstance(value, str) or "${" not in value:
            return value
        try:
            filled = replace(value, self._look_up)
        except LookupError as error:
            self.findings.add(path, str(error))
            return value
        except ValueError:  # malformed: noted by check()
            return value
        return _LEFT_OUT if filled is None else filled

    def _look_up(self, reference: Reference) -> Any:
        value = self._known(reference)
        if isinstance(value, Reference) or self._left < 0:
            return reference
        self._left -= size(value)
        if self._left < 0:
            raise LookupError(f"{reference}: with it, inputs and targets expand to more than 4 MiB; make them smaller")
        return value

    def _known(self, reference: Reference) -> Any:
        if reference.scope == "inputs":
            known = len(reference.path) == 1 and reference.path[0] in self.inputs
            return self.inputs[reference.path[0]] if known else reference
        if reference.scope != "target":
            return reference
        value: Any = self._resolved
        try:
            for part in reference.path:
                value = entry(value, part)
        except LookupError:  # noted by check()
            return reference
        return value

    def origin(self, written: Any, base: Path, path: Path) -> Path:
        """Where in the file the value at `path` within a filled-in value comes from: there, or in the targets."""
        value = written
        for index, part in enumerate(path):
            try:
                value = entry(value, part)
            except LookupError:
                break
            if isinstance(value, str) and (target := _whole_target(value)) is not None:
                return ("targets", self.section, *target.path, *path[index + 1 :])
        return (*base, *path)


def _whole_target(text: str) -> Reference | None:
    try:
        reference = whole(text)
    except ValueError:
        return None
    return reference if reference is not None and reference.scope == "target" else None


def size(value: Any) -> int:
    """About how many characters a value takes when written out."""
    if isinstance(value, str):
        return len(value) + 8
    if isinstance(value, Mapping):
        return sum(len(key) + size(item) for key, item in value.items()) + 8
    return sum(map(size, value)) + 8 if isinstance(value, list | tuple) else 8


def holes(value: Any) -> Iterator[Reference]:
    """The references that still stand in a text; nothing for a malformed one, which is noted already."""
    if isinstance(value, str) and "${" in value:
        try:
            yield from found_in(value)
        except ValueError:
            return
