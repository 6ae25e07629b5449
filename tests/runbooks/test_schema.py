"""The JSON Schema that editors use, and the generated part of the reference."""

import json

import jsonschema
import pytest

from runbooks import reference_tables, schema
from runbooks.shipped import find, shipped
from runbooks.yaml_tree import compose

SCHEMA = json.loads(schema.FILE.read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def complaints(text: str) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(compose(text, "r").value)]


def test_the_schema_is_that_of_the_code():
    assert schema.FILE.read_text(encoding="utf-8") == schema.text(), "run python -m runbooks.schema"


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", shipped())
def test_the_schema_accepts_what_is_shipped(name):
    assert complaints(find(name).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("service: checkout", "service: checkout\nservce: x"),
        ("agree: 2", "agre: 2"),
        ("agree: 2", "agree: two"),
        ("budget: 5s", "budget: 5"),
        ("uses: assess.severity", "uses: assess.severity\n    manual: x"),
        ("password: ${env.FAILOVER_LAB_PASSWORD}", "password: 5"),
        ("      group: ${target.fleet}\n", ""),
        ("severity: P3", "severity: P5"),
    ],
)
def test_the_schema_marks_what_an_editor_can_know(old, new):
    text = find("region-failover").read_text(encoding="utf-8")
    changed = text.replace(old, new, 1)
    if "password" in old:
        changed = text.replace("node: ${target.east_database}", "node: {host: h, database: d, user: u, password: hunter2}")
    assert changed != text
    assert complaints(changed)


def test_the_generated_part_of_the_reference_is_that_of_the_code():
    assert reference_tables.FILE.read_text(encoding="utf-8") == reference_tables.updated(), "run python -m runbooks.reference_tables"
