"""What starting a run asks: check the questions themselves, and read the answers by type."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from runbooks.findings import Findings, shorten
from runbooks.model import Input, InputType
from runbooks.scalars import DIGITS
from tasks.durations import format_duration, parse_duration

LONGEST_TEXT = 10_000
LONGEST_LIST = 1_000
_NUMBER = "a number, such as 0.5"
_BOUNDED = (InputType.integer, InputType.number, InputType.duration, InputType.time)


def read_inputs(
    questions: Mapping[str, Input], answers: Mapping[str, Any], findings: Findings, *, leave_open: bool = False
) -> dict[str, Any]:
    """Check every question and answer; give JSON values with defaults filled in.

    leave_open: a required input without an answer is left out instead of being a problem, to check a runbook alone.
    """
    for name in answers:
        if name not in questions:
            findings.add(
                ("inputs",), f"{shorten(name)} is no input of this runbook{findings.names.nearest(name, questions)}"
            )
    values: dict[str, Any] = {}
    for name, question in questions.items():
        default = check_question(name, question, findings)
        answer = answers.get(name)
        if answer is None or (answer == "" and question.type is not InputType.text):
            if question.default is None and not question.optional:
                if not leave_open:
                    findings.add(("inputs", name), f"is required; give it as {name}=…, {wanted(question)}", key=True)
                continue
            values[name] = default
            continue
        try:
            values[name] = read_answer(question, answer)
        except ValueError as error:
            findings.add(("inputs", name), str(error), key=True)
    return values


def check_question(name: str, question: Input, findings: Findings) -> Any:
    """Note what is wrong with a question; give its default as a JSON value."""
    before = len(findings.problems)
    if question.type is InputType.choice and not question.choices:
        findings.add(("inputs", name), "a choice needs `choices`", key=True)
    if question.type is not InputType.choice and question.choices:
        findings.add(
            ("inputs", name, "choices"), f"only a choice has choices, and this is a {question.type.value}", key=True
        )
    if len(set(question.choices)) < len(question.choices):
        findings.add(("inputs", name, "choices"), "names a choice twice")
    for bound in ("min", "max"):
        _check_bound(name, question, bound, findings)
    if len(findings.problems) > before or question.default is None:
        return None
    low, high = _bound(question, "min"), _bound(question, "max")
    if low is not None and high is not None and low > high:
        findings.add(("inputs", name, "min"), f"min {question.min} is above max {question.max}")
        return None
    try:
        return read_answer(question, question.default)
    except ValueError as error:
        findings.add(("inputs", name, "default"), str(error))
        return None


def _check_bound(name: str, question: Input, bound: str, findings: Findings) -> None:
    if getattr(question, bound) is None:
        return
    if question.type in (InputType.boolean, InputType.choice):
        findings.add(("inputs", name, bound), f"a {question.type.value} has no {bound}", key=True)
        return
    try:
        _bound(question, bound)
    except ValueError as error:
        findings.add(("inputs", name, bound), str(error))


def _bound(question: Input, bound: str) -> Any:
    value = getattr(question, bound)
    if value is None:
        return None
    if question.type in (InputType.text, InputType.list):
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        raise ValueError(f"{shorten(value)} is no length; write a whole number")
    return _parse(question.type, value)


def wanted(question: Input) -> str:
    """What an answer looks like."""
    if question.type is InputType.choice:
        return "one of " + ", ".join(question.choices[:20])
    return {
        InputType.text: "a text",
        InputType.integer: "a whole number",
        InputType.number: _NUMBER,
        InputType.boolean: "true or false",
        InputType.duration: "a time with a unit, such as 90s",
        InputType.time: "a time with its zone, such as 2026-11-21T03:04:05Z",
        InputType.list: "texts, separated by commas",
    }[question.type]


def read_answer(question: Input, answer: Any) -> Any:
    """One answer, typed or as text from a command line, as a JSON value; raises ValueError with what is expected."""
    if question.type is InputType.choice:
        if answer not in question.choices:
            raise ValueError(f"{shorten(answer)} is not allowed; write {wanted(question)}")
        return answer
    value = _parse(question.type, answer)
    measured = len(value) if isinstance(value, str | list) else value
    low, high = _bound(question, "min"), _bound(question, "max")
    what = "" if question.type in _BOUNDED else " long" if isinstance(value, str) else " entries"
    if low is not None and measured < low:
        raise ValueError(f"{shorten(answer)} is too small; it must be at least {question.min}{what}")
    if high is not None and measured > high:
        raise ValueError(f"{shorten(answer)} is too large; it must be at most {question.max}{what}")
    return to_json(value)


def to_json(value: Any) -> Any:
    """Times as text: '1m30s', '2026-11-21T03:04:05+00:00'; the rest as it is."""
    if isinstance(value, timedelta):
        return format_duration(value)
    return value.isoformat() if isinstance(value, datetime) else value


def _parse(kind: InputType, value: Any) -> Any:
    match kind:
        case InputType.text:
            return _text(value)
        case InputType.integer:
            return _integer(value)
        case InputType.number:
            return _number(value)
        case InputType.boolean:
            return _boolean(value)
        case InputType.duration:
            return value if isinstance(value, timedelta) else parse_duration(value)
        case InputType.time:
            return _time(value)
        case _:
            return _list(value)


def _wrong(value: Any, wanted: str) -> ValueError:
    return ValueError(f"{shorten(value)} is not {wanted}")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(value, "a text; put it in quotes")
    if len(value) > LONGEST_TEXT:
        raise ValueError(f"is longer than {LONGEST_TEXT} characters; put it into a file and name the file")
    if "${" in value:
        raise ValueError("${ stands in it; an input holds no references")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half a character; write it again") from None
    return value


def _integer(value: Any) -> int:
    if isinstance(value, str) and value.strip().removeprefix("-").isdecimal() and len(value) <= DIGITS:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 10**DIGITS:
        raise _wrong(value, "a whole number; write digits, such as 3")
    return value


def _number(value: Any) -> float | int:
    if isinstance(value, str) and len(value) <= 40:
        try:
            value = float(value)
        except ValueError:
            raise _wrong(value, f"a number; write {_NUMBER}") from None
        value = int(value) if value.is_integer() and abs(value) < 10**15 else value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(value, f"a number; write {_NUMBER}")
    if (isinstance(value, int) and abs(value) >= 10**DIGITS) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"is too large for a number; write {_NUMBER}")
    return value


def _boolean(value: Any) -> bool:
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise _wrong(value, "true or false")
    return value


def _time(value: Any) -> datetime:
    if isinstance(value, str) and len(value) <= 60:
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            raise ValueError(
                f"{shorten(value)} is not a time; write it with its zone, such as 2026-11-21T03:04:05Z"
            ) from None
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError(f"{shorten(value)} is not a time with a zone; write it as 2026-11-21T03:04:05Z")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{shorten(value)} is out of range") from None


def _list(value: Any) -> list[str]:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, list | tuple):
        raise _wrong(value, "a list; write texts, separated by commas")
    if len(value) > LONGEST_LIST:
        raise ValueError(f"has more than {LONGEST_LIST} entries; put them into a file and name the file")
    return [_text(one) for one in value]
