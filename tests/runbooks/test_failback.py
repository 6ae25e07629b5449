"""`failback` names a runbook that is there: shipped, or beside the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from runbooks.loader import load, load_text
from runbooks.model import Mode
from runbooks.planner import examine, plan
from tests.runbooks.making import runbook

BODY = "failback: {}\n"


def written(folder: Path, failback: str) -> Path:
    path = folder / "out.yaml"
    path.write_text(runbook(BODY.format(failback)))
    return path


def problems(path: Path) -> list[str]:
    return [f"{one.place.line}:{one.place.column}: {one.path}: {one.message}" for one in examine(load(path)).problems]


def test_a_shipped_runbook_and_one_in_the_folder_may_be_named(tmp_path: Path) -> None:
    (tmp_path / "some-file.yml").write_text('title: x\nname: "way-home" # as its owner calls it\n')
    assert problems(written(tmp_path, "way-home")) == []
    assert problems(written(tmp_path, "check-service")) == []


def test_any_other_name_is_a_problem_at_its_place_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "home.yaml").write_text("name: way-home\n")
    (only,) = problems(written(tmp_path, "way-hom"))
    assert only.startswith("7:11: failback: there is no runbook 'way-hom'")
    assert only.endswith("did you mean 'way-home'?")


@pytest.mark.parametrize("name", ["home", "region-home", "nested"])
def test_file_names_nested_names_and_other_folders_do_not_count(tmp_path: Path, name: str) -> None:
    (tmp_path / "home.yaml").write_text("name: way-home\nsteps:\n  - name: nested\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "there.yaml").write_text("name: region-home\n")
    assert len(problems(written(tmp_path, name))) == 1


def test_a_runbook_is_not_its_own_way_home(tmp_path: Path) -> None:
    (only,) = problems(written(tmp_path, "example"))
    assert "itself" in only


def test_neighbours_that_cannot_be_read_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"name: \xff\xfe")
    (tmp_path / "gone.yaml").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.yaml").mkdir()
    assert len(problems(written(tmp_path, "way-home"))) == 1


def test_a_run_under_way_is_planned_again_without_the_folder(tmp_path: Path) -> None:
    """A resume, perhaps on another machine, must not fail because a neighbour is missing there."""
    text = written(tmp_path, "way-home").read_text()
    assert plan(load_text(text, "out.yaml"), mode=Mode.live, inputs={}).runbook.failback == "way-home"
