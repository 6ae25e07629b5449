"""From YAML text to a `Runbook`: every error at once, each with its place, and what to write instead."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from runbooks.findings import Findings
from runbooks.model import Runbook
from runbooks.model_errors import report
from runbooks.problems import Place, Problem, RunbookError
from runbooks.shipped import within_reach
from runbooks.yaml_tree import MOST_BYTES, Tree, compose, decode

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Loaded:
    """A runbook exactly as written, with its text and the place of everything in it."""

    runbook: Runbook
    text: str
    file: str
    tree: Tree
    within_reach: frozenset[str] | None = None
    """Runbooks that this one may name; None where nobody looked: text from a journal is judged without its folder."""

    def place(self, *path: str | int) -> Place:
        """Tell where the value at a path stands, or the nearest thing around it when it is not there."""
        return self.tree.place(path)


def load(path: FilePath | str) -> Loaded:
    """Read a runbook from a file; raises RunbookError with every problem, an unreadable file included."""
    loaded = load_text(read(path), str(path))
    if loaded.runbook.failback is None:
        return loaded
    return replace(loaded, within_reach=within_reach(FilePath(path)))


def load_text(text: str | bytes, file: str) -> Loaded:
    """Read a runbook from text; `file` names it in problems. Raises RunbookError with every problem."""
    decoded = decode(text, file)
    tree = compose(decoded, file)
    return Loaded(validate(Runbook, tree), decoded, file, tree)


def read(path: FilePath | str) -> bytes:
    """The bytes of a regular file, at most one more than a runbook may have; raises RunbookError."""
    try:
        if not FilePath(path).is_file():  # a pipe would wait for ever
            wrong = "is not a file" if FilePath(path).exists() else "there is no such file"
            raise RunbookError([Problem(Place(str(path)), "", wrong)])
        with FilePath(path).open("rb") as file:
            return file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RunbookError([Problem(Place(str(path)), "", f"cannot be read: {reason}")]) from None


def validate(model: type[Model], tree: Tree) -> Model:
    """Check a tree against a model of the grammar; raises RunbookError with its problems and the tree's own."""
    findings = Findings(tree, list(tree.problems))
    if not isinstance(tree.value, dict):
        if not tree.problems:
            findings.add(
                (), "is empty" if tree.value is None else "is not a mapping; write `schema: failover/v1` and so on"
            )
        raise RunbookError(findings.problems)
    try:
        valid = model.model_validate(tree.value, by_alias=True, by_name=False)
    except ValidationError as error:
        report(error, model, findings)
    if findings.problems:
        raise RunbookError(findings.problems)
    return valid
