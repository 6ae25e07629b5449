"""Text on its way to Slack: escaped, on one line, and never longer than Slack takes.

Must never happen: a value from a runbook or from the world pings people (`<!channel>`), breaks out of a code block, or
makes Slack refuse the message. Every value passes `fit` on its way into a block.
"""

from __future__ import annotations

import re

_INVISIBLE = re.compile("[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]+")
"""Control characters, and those that turn the direction of text: a title must not read differently than it is."""
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
CUT = "…"


def units(text: str) -> int:
    """Length as Slack may count it: in UTF-16, where an emoji is two; the stricter of the ways to count."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def plain(text: str) -> str:
    """One line without control characters; half surrogates, which no JSON carries, are replaced."""
    return _INVISIBLE.sub(" ", text).encode("utf-8", "replace").decode("utf-8")


def fit(text: str, limit: int) -> str:
    """Escape a value, at most `limit` long; what is cut off ends in '…'.

    Backticks become their look-alike, so that a value can neither begin nor end a piece of code.
    """
    return _escaped(plain(text).replace("`", "\N{MODIFIER LETTER GRAVE ACCENT}"), limit)


def _escaped(text: str, limit: int) -> str:
    pieces = [_ESCAPES.get(character, character) for character in text]
    if sum(map(units, pieces)) <= limit:
        return "".join(pieces)
    room, kept = limit - units(CUT), []
    for piece in pieces:
        room -= units(piece)
        if room < 0:
            break
        kept.append(piece)
    return "".join(kept) + CUT
