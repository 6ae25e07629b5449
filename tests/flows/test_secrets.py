"""A secret is masked however a text of others spells it."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from flows.secrets import MASK, Secrets

SECRET = 'first-half "quoted"\nsecond-half/äöü'


@pytest.mark.parametrize("spelt", [
    SECRET, repr(SECRET), repr(SECRET.encode()), json.dumps(SECRET), quote(SECRET), quote(SECRET, safe=""), SECRET.strip(),
    "line 2 is second-half/äöü", "first-half \"quoted\"",
])  # fmt: skip
def test_no_spelling_shows_it(spelt: str) -> None:
    secrets = Secrets()
    secrets.learn(SECRET)
    shown = secrets.clean({"error": [f"refused: {spelt} is wrong"]})["error"][0]
    assert "half" not in shown
    assert MASK in shown


def test_what_is_too_short_to_be_secret_blots_nothing_out() -> None:
    secrets = Secrets()
    secrets.learn("ab")
    assert secrets.clean("a cable") == "a cable"
