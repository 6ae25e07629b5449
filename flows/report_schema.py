"""The report as JSON Schema, made from its model. `python -m flows.report_schema` writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flows.report_parts import Report

FILE = Path(__file__).with_name("report-v1.schema.json")


def schema() -> dict[str, Any]:
    """What `failover report --format json` prints."""
    made = Report.model_json_schema(by_alias=True, mode="serialization")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **made,
        "title": "A report of failover: times are UTC (RFC 3339), durations are seconds",
    }


def text() -> str:
    """The schema as it stands in the file."""
    return json.dumps(schema(), indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
