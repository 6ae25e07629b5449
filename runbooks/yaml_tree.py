"""Read YAML's structure and nothing else: mappings, lists, text, numbers, each with its line and column.

Refused: repeated keys, anchors, aliases, merge keys, tags, directives, several documents, keys that are not text,
invisible characters, and files that are too large or too deep. Works on PyYAML's event stream, never on its objects.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from runbooks.paths import Path, clip, show_path, step_name
from runbooks.problems import Place, Problem, RunbookError
from runbooks.scalars import Surprise, read_plain

MOST_BYTES = 1 << 20
DEEPEST = 50
MOST_NODES = 50_000

_LOADER: Any = getattr(yaml, "CLoader", yaml.Loader)
_INVISIBLE = re.compile(  # beside the controls: line breaks that editors do not show, and marks that reorder text
    "[^\t\n\r\x20-\x7e\xa0-\u2027\u202f-\u2065\u206a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)


@dataclass(frozen=True)
class Tree:
    """A document as plain values, with the place of every value and every key, by path."""

    file: str
    value: Any
    values: Mapping[Path, Place]
    keys: Mapping[Path, Place]
    problems: tuple[Problem, ...] = ()
    doubtful: frozenset[Path] = frozenset()
    """Paths whose value is already a problem: nothing more needs to be said about them."""

    def place(self, path: Path) -> Place:
        """Where the value stands, else the nearest thing around it that is in the file."""
        return _nearest_place(self.values, path, self.file)

    def key_place(self, path: Path) -> Place:
        """Where the key stands, or the value in a list."""
        return self.keys.get(path) or self.place(path)


def _nearest_place(places: Mapping[Path, Place], path: Path, file: str) -> Place:
    for length in range(len(path), -1, -1):
        if (place := places.get(path[:length])) is not None:
            return place
    return Place(file)


def decode(data: bytes | str, file: str) -> str:
    """Give the text of a file: UTF-8 without invisible characters, at most 1 MiB; raises RunbookError."""
    if len(data) > MOST_BYTES:
        raise RunbookError([Problem(Place(file), "", "is larger than 1 MiB; a runbook is a text of a few kilobytes")])
    if isinstance(data, bytes):
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            column = error.start - data.rfind(b"\n", 0, error.start)
            raise RunbookError(
                [Problem(Place(file, line, column), "", "is not UTF-8 text; save it as UTF-8")]
            ) from None
    else:
        text = data
    text = text.removeprefix("\ufeff")
    if match := _INVISIBLE.search(text):
        raise RunbookError([Problem(_place_in(text, match.start(), file), "", _invisible(match[0]))])
    return text


def _place_in(text: str, at: int, file: str) -> Place:
    return Place(file, text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at))


def _invisible(character: str) -> str:
    return f"holds the invisible character U+{ord(character):04X}; delete it"


def compose(text: str, file: str) -> Tree:
    """Read a decoded text; raises RunbookError when it is no YAML at all. Other problems stand in `.problems`."""
    composer = _Composer(file)
    try:
        value = composer.document(yaml.parse(text, Loader=_LOADER))
    except yaml.MarkedYAMLError as error:
        raise RunbookError([*composer.problems(), _syntax(error, text, file)]) from None
    except (yaml.YAMLError, RecursionError) as error:  # what its reader refuses was refused by decode()
        raise RunbookError(
            [*composer.problems(), Problem(Place(file), "", f"is not YAML: {type(error).__name__}")]
        ) from None
    doubtful = frozenset(path for path, _, _ in composer.found)
    return Tree(file, value, composer.values, composer.keys, composer.problems(value), doubtful)


def _syntax(error: yaml.MarkedYAMLError, text: str, file: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return Problem(Place(file), "", f"is not YAML: {error.problem}")
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    return Problem(
        Place(file, mark.line + 1, mark.column + 1), "", f"is not YAML: {error.problem}{_hint(line, mark.column)}"
    )


def _hint(line: str, column: int) -> str:
    if line[column : column + 1] == "\t" or "\t" in line[: len(line) - len(line.lstrip())]:
        return "; indent with spaces, not tabs"
    if "${" in line and re.search(r"[\[{,]\s*\$\{|:\s*\$\{[^}]*\}\s*[,}\]]", line):
        return '; inside [ ] and { } put a reference in quotes: "${inputs.x}"'
    if line[column : column + 1] in ("@", "`", "%") or line[column : column + 1] == ":":
        return "; put the text in quotes"
    return ""


@dataclass
class _Composer:
    file: str
    found: list[tuple[Path, Place, str]] = field(default_factory=list)
    values: dict[Path, Place] = field(default_factory=dict)
    keys: dict[Path, Place] = field(default_factory=dict)
    nodes: int = 0

    def document(self, events: Iterator[Event]) -> Any:
        value: Any = None
        documents = 0
        for event in events:
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if event.version or event.tags:
                    self.report((), event, "starts with a % directive; leave it out")
                if documents > 1:
                    self.stop(event, "holds several documents; keep one runbook in one file, without a second ---")
            elif isinstance(event, NodeEvent):
                value = self.node(event, events, ())
        return value

    def node(self, event: Event, events: Iterator[Event], path: Path) -> Any:
        self.values[path] = self.place(event)
        self.nodes += 1
        if self.nodes > MOST_NODES:
            self.stop(event, f"holds more than {MOST_NODES} values; a runbook is smaller")
        if len(path) > DEEPEST:
            self.stop(event, f"is nested more than {DEEPEST} deep; a runbook is flatter")
        if isinstance(event, AliasEvent):
            self.report(path, event, f"*{clip(str(event.anchor))} is an alias; write the value out")
            return None
        anchor, tag = getattr(event, "anchor", None), getattr(event, "tag", None)
        if anchor is not None:
            self.report(path, event, f"&{clip(anchor)} is an anchor; write the value out where it is needed")
        if tag is not None:
            self.report(path, event, f"{clip(tag)} is a tag; leave it out")
        if isinstance(event, MappingStartEvent):
            return self.mapping(events, path)
        if isinstance(event, SequenceStartEvent):
            return self.sequence(events, path)
        return self.scalar(event, path) if isinstance(event, ScalarEvent) else None

    def sequence(self, events: Iterator[Event], path: Path) -> list[Any]:
        items: list[Any] = []
        for event in events:
            if isinstance(event, SequenceEndEvent):
                break
            items.append(self.node(event, events, (*path, len(items))))
        return items

    def mapping(self, events: Iterator[Event], path: Path) -> dict[str, Any]:
        items: dict[str, Any] = {}
        for event in events:
            if isinstance(event, MappingEndEvent):
                break
            key = self.key(event, events, path)
            value_event = next(events)
            if key in items:
                first = self.keys[(*path, key)]
                self.report((*path, key), event, f"'{clip(key)}' is given twice, first on line {first.line}; keep one")
                self.skip(value_event, events)
                continue
            self.keys[(*path, key)] = self.place(event)
            items[key] = self.node(value_event, events, (*path, key))
        return items

    def key(self, event: Event, events: Iterator[Event], path: Path) -> str:
        """The key as text, whatever stands there; what is no text is a problem."""
        self.nodes += 1
        if isinstance(event, ScalarEvent) and event.anchor is None and event.tag is None:
            if event.implicit[0]:
                return self.plain_key(event, path)
            self.visible(event, (*path, event.value))
            return event.value
        self.skip(event, events)
        wrong = "?"  # stands for its name, so that the rest can still be read
        self.report((*path, wrong), event, "a key is plain text; write its name without anchors, tags or structure")
        return wrong

    def skip(self, event: Event, events: Iterator[Event]) -> None:
        """Read over a node."""
        depth = int(isinstance(event, MappingStartEvent | SequenceStartEvent))
        while depth:
            if depth > DEEPEST:
                self.stop(event, f"is nested more than {DEEPEST} deep; a runbook is flatter")
            event = next(events)
            depth += isinstance(event, MappingStartEvent | SequenceStartEvent)
            depth -= isinstance(event, MappingEndEvent | SequenceEndEvent)

    def plain_key(self, event: ScalarEvent, path: Path) -> str:
        word = event.value
        if word == "<<":
            self.report((*path, word), event, "<< is a merge key; write the fields out")
            return word
        value = read_plain(word)
        if isinstance(value, Surprise):
            self.report((*path, word), event, value.message)
        elif not isinstance(value, str):
            self.report(
                (*path, word),
                event,
                f"a key is text, and {word or 'an empty key'} is not; "
                + (f'quote it: "{clip(word)}"' if word else "give it a name"),
            )
        return word

    def scalar(self, event: ScalarEvent, path: Path) -> Any:
        self.visible(event, path)
        if not event.implicit[0]:
            return event.value
        value = read_plain(event.value)
        if isinstance(value, Surprise):
            self.report(path, event, value.message)
            return value.value
        return value

    def visible(self, event: ScalarEvent, path: Path) -> None:
        """Escapes can bring in what the text itself may not hold."""
        if match := _INVISIBLE.search(event.value):
            self.report(path, event, _invisible(match[0]))

    def place(self, event: Event) -> Place:
        mark = event.start_mark
        return Place(self.file, mark.line + 1, mark.column + 1) if mark is not None else Place(self.file)

    def report(self, path: Path, event: Event, message: str) -> None:
        self.found.append((path, self.place(event), message))

    def problems(self, value: Any = None) -> tuple[Problem, ...]:
        return tuple(
            Problem(place, show_path(path, step_name(value, path)), message) for path, place, message in self.found
        )

    def stop(self, event: Event, message: str) -> None:
        raise RunbookError([*self.problems(), Problem(self.place(event), "", message)])
