"""What an unquoted word of YAML means here: text, a whole number, a decimal, true, false or nothing.

YAML 1.1 and 1.2 read some words differently (`no`, `010`, `1:30`). Those are refused with what to write instead, so
that nobody has to know which parser reads a runbook.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

DIGITS = 18
"""Longest whole number: it fits 64 bits, in every journal and every JSON reader."""

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)\.[0-9]+")
_WORDS = {"null": None, "true": True, "false": False, "": None}

_TRUTH = re.compile(r"y|yes|on|true|n|no|off|false", re.IGNORECASE)
_YES = frozenset({"y", "yes", "on", "true"})
_NOTHING = re.compile(r"~|null", re.IGNORECASE)
_CLOCK = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-9]+)+(?:\.[0-9_]*)?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt \t].*)?")
_OTHER_BASE = re.compile(r"[-+]?0(?:[xX][0-9a-fA-F_]+|[oO][0-7_]+|[bB][01_]+)")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+(?:\.[0-9_]*)?")
_UNDERSCORES = re.compile(r"[-+]?[0-9][0-9_]*_[0-9_]*(?:\.[0-9_]*)?")
_EXPONENT = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+")
_LOOSE = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)")
_ENDLESS = re.compile(r"[-+]?\.(?:inf|nan)", re.IGNORECASE)


@dataclass(frozen=True)
class Surprise:
    """A word that YAML's versions read differently: how we go on reading it, and what to write instead."""

    value: str
    message: str


def read_plain(word: str) -> str | int | float | bool | Surprise | None:
    """Tell what an unquoted scalar stands for; a Surprise when its author may have meant something else."""
    if word in _WORDS:
        return _WORDS[word]
    if _INTEGER.fullmatch(word):
        if len(word) > DIGITS:
            return Surprise(word, f"{_short(word)} has more than {DIGITS} digits; put it in quotes to keep it as text")
        return int(word)
    if _DECIMAL.fullmatch(word):
        return (
            float(word)
            if len(word) <= 2 * DIGITS
            else Surprise(word, f"{_short(word)} is too long for a number; {_quote(word)}")
        )
    message = _surprise(word)
    return Surprise(word, message) if message else word


def _surprise(word: str) -> str | None:
    shown = _short(word)
    if _TRUTH.fullmatch(word):
        truth = "true" if word.lower() in _YES else "false"
        return f"{shown} without quotes means {truth} to some YAML readers; write {truth}, or {_quote(word)}"
    if _NOTHING.fullmatch(word):
        return f"{shown} without quotes means nothing at all; write null or leave it empty, or {_quote(word)}"
    if _CLOCK.fullmatch(word):
        return (
            f"{shown} without quotes is a number in base 60 to some YAML readers; "
            f"write a time with units, such as 1m30s, or {_quote(word)}"
        )
    if _DATE.fullmatch(word):
        return f"{shown} without quotes is a date to some YAML readers; {_quote(word)}"
    if _OTHER_BASE.fullmatch(word):
        return f"{shown} is a number in another base; write it in base 10, or {_quote(word)}"
    if _LEADING_ZERO.fullmatch(word):
        return (
            f"{shown} starts with a zero, which is base 8 to some YAML readers; leave the zero out, or {_quote(word)}"
        )
    if _UNDERSCORES.fullmatch(word):
        return f"{shown} holds underscores; leave them out of a number, or {_quote(word)}"
    if _EXPONENT.fullmatch(word):
        return f"{shown} is a number with an exponent to some YAML readers; write it in full, or {_quote(word)}"
    if _ENDLESS.fullmatch(word):
        return f"{shown} is no number to count with; write a real number, or {_quote(word)}"
    if _LOOSE.fullmatch(word):
        return (
            f"{shown} is an unusual number; write digits on both sides of the point and no plus sign, or {_quote(word)}"
        )
    return f"{shown} has a meaning of its own in YAML; {_quote(word)}" if word in ("=", "<<") else None


def _quote(word: str) -> str:
    return f'quote it: "{word}"' if len(word) <= 40 else "quote it"


def _short(word: str) -> str:
    return word if len(word) <= 40 else word[:30] + "…"
