"""Every YAML block in the documents is planned, and where problems are shown below it, they are what check says."""

import re
from pathlib import Path

import pytest

from runbooks.loader import load_text
from runbooks.model import Mode, Runbook
from runbooks.planner import check, plan
from runbooks.problems import RunbookError
from runbooks.shipped import find
from tests.runbooks.making import HEAD

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```yaml\n(?P<yaml>.*?)^```\n(?:\n```text\n(?P<text>.*?)^```\n)?", re.DOTALL | re.MULTILINE)
KEYS = frozenset(field.alias or name for name, field in Runbook.model_fields.items())


def blocks() -> list:
    found = []
    for file in sorted(DOCS.glob("*.md")):
        for match in BLOCK.finditer(file.read_text(encoding="utf-8")):
            line = file.read_text(encoding="utf-8").count("\n", 0, match.start()) + 1
            if set(re.findall(r"^([a-z_]+):", match["yaml"], re.MULTILINE)) <= KEYS:
                found.append(pytest.param(match["yaml"], match["text"], id=f"{file.name}:{line}"))
    return found


def said(text: str) -> list[str]:
    try:
        return [str(problem) for problem in check(load_text(text, "my-runbook.yaml"))]
    except RunbookError as error:
        return [str(problem) for problem in error.problems]


@pytest.mark.parametrize(("yaml", "text"), blocks())
def test_a_runbook_in_the_documents_is_as_the_documents_say(yaml, text):
    whole = yaml if yaml.startswith("schema:") else HEAD + yaml
    assert said(whole) == (text or "").splitlines()
    if text is None:
        loaded = load_text(whole, "my-runbook.yaml")
        assert plan(loaded, mode=Mode.live, inputs={}).steps
        if loaded.runbook.targets.drill:
            assert plan(loaded, mode=Mode.drill, inputs={}).steps


def test_the_tutorial_begins_with_the_shipped_example():
    tutorial = (DOCS / "writing-a-runbook.md").read_text(encoding="utf-8")
    shipped = find("check-service").read_text(encoding="utf-8").split("\n", 1)[1]
    assert shipped in tutorial


def test_every_file_of_ours_that_the_documents_name_is_there():
    named = {
        (page.name, name)
        for page in (*DOCS.glob("*.md"), DOCS.parent / "README.md")
        for name in re.findall(r"`((?:tests|benchmarks|flows|tasks|runbooks|deployments)/[\w./-]+\.\w+)", page.read_text(encoding="utf-8"))
    }
    assert len(named) > 30
    places = (DOCS.parent, DOCS.parent / "tests")  # who-wins.md names tests from there
    assert [one for one in sorted(named) if not any((place / one[1]).exists() for place in places)] == []


def named_code() -> set[tuple[str, str, str]]:
    """Page, file and name of every `file.py` `name`, `other` and every `flows.file.name` in the documents."""
    found = set()
    for page in (*DOCS.glob("*.md"), DOCS.parent / "README.md"):
        text = page.read_text(encoding="utf-8")
        for path, names in re.findall(r"`((?:flows|tasks|runbooks|deployments)/[\w/]+\.py)`((?:,?\s+`\w[\w.]*`(?!\.))+)", text):
            found |= {(page.name, path, name) for name in re.findall(r"`(\w+(?:\.\w+)?)`", names)}
        for path, name in re.findall(r"`((?:flows|tasks|runbooks|deployments)(?:\.[a-z_]+)+)\.([a-z_]\w+)[`(]", text):
            found.add((page.name, path.replace(".", "/") + ".py", name))
    return found


def test_every_name_in_our_code_that_the_documents_give_is_defined_there():
    found = named_code()
    assert len(found) > 40
    missing = [
        (page, path, name)
        for page, path, name in sorted(found)
        for part in name.split(".")
        if not re.search(rf"^\s*(?:(?:async )?def|class) {part}\b|^{part}\b.* = ", (DOCS.parent / path).read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert missing == []
