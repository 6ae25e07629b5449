"""Slack's limits on a message, checked before it is sent: a message that Slack refuses tells nobody anything.

Source: Slack's Block Kit reference and chat.postMessage (blocks 50, header 150, section 3000, fields 10 of 2000, …).
Lengths are counted in UTF-16 units of the escaped text, the strictest way to count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flows.slack_text import units

Block = dict[str, Any]
"""Block Kit's own JSON: made in `flows.slack_card` and `flows.slack_thread`, read by Slack only."""

BLOCKS, HEADER, SECTION, FIELDS, FIELD = 50, 150, 3000, 10, 2000
TEXT = 4000
"""Of the fallback; Slack takes more in a post, but refuses longer ones in an edit (msg_too_long)."""
ELEMENTS = {"actions": 25, "context": 10}
BUTTON_TEXT, BUTTON_VALUE, BUTTON_URL, IDENTIFIER = 75, 2000, 3000, 255
_TYPES = {"header", "section", "context", "divider", "actions"}
_TEXT_TYPES = {"plain_text", "mrkdwn"}


@dataclass(frozen=True)
class Message:
    """What is posted: blocks, and the text that notifications and old clients show instead."""

    text: str
    blocks: tuple[Block, ...] = ()


def problems(text: str, blocks: Sequence[Block]) -> list[str]:
    """Everything that Slack would refuse in a message; empty when it takes it."""
    return list(_all(text, blocks))


def _all(text: str, blocks: Sequence[Block]) -> Iterator[str]:
    if not text and not blocks:
        yield "no text"
    yield from _longer("text", text, TEXT)
    if len(blocks) > BLOCKS:
        yield f"{len(blocks)} blocks; at most {BLOCKS}"
    for number, block in enumerate(blocks):
        for problem in _block(block):
            yield f"blocks[{number}]: {problem}"


def _block(block: Block) -> Iterator[str]:
    kind = block.get("type")
    if kind not in _TYPES:
        yield f"type {kind!r} is not one of {', '.join(sorted(_TYPES))}"
        return
    yield from _longer("block_id", str(block.get("block_id", "")), IDENTIFIER)
    match kind:
        case "header":
            yield from _text("text", block.get("text"), HEADER, only="plain_text")
        case "section":
            fields = block.get("fields", [])
            if "text" not in block and not fields:
                yield "a section needs text or fields"
            if "text" in block:
                yield from _text("text", block["text"], SECTION)
            if len(fields) > FIELDS:
                yield f"{len(fields)} fields; at most {FIELDS}"
            for field in fields:
                yield from _text("field", field, FIELD)
        case "context" | "actions":
            yield from _elements(kind, block.get("elements", []))


def _elements(kind: str, elements: Sequence[Block]) -> Iterator[str]:
    if not 1 <= len(elements) <= ELEMENTS[kind]:
        yield f"{len(elements)} elements in {kind}; 1 to {ELEMENTS[kind]}"
    for element in elements:
        if kind == "context":
            yield from _text("element", element, SECTION)
        elif element.get("type") != "button":
            yield f"element {element.get('type')!r}; only buttons are used"
        else:
            yield from _text("button", element.get("text"), BUTTON_TEXT, only="plain_text")
            yield from _longer("button value", str(element.get("value", "")), BUTTON_VALUE)
            yield from _longer("button url", str(element.get("url", "")), BUTTON_URL)
            yield from _longer("action_id", str(element.get("action_id", "")), IDENTIFIER)


def _text(name: str, given: Any, limit: int, only: str | None = None) -> Iterator[str]:
    if not isinstance(given, Mapping) or given.get("type") not in ({only} if only else _TEXT_TYPES):
        yield f"{name} is no {only or 'text object'}"
        return
    if not isinstance(given.get("text"), str) or not given["text"]:
        yield f"{name} is empty"
        return
    yield from _longer(name, given["text"], limit)


def _longer(name: str, text: str, limit: int) -> Iterator[str]:
    if units(text) > limit:
        yield f"{name} is {units(text)} long; at most {limit}"
