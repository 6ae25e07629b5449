"""Secrets never leave: what was read from the environment or a file is taken out of everything that is written.

Actions keep secrets in SecretStr and never show them; this is the second wall, for texts of others (a driver's error).
"""

from __future__ import annotations

import json
from typing import Any, TypeVar
from urllib.parse import quote

from pydantic import BaseModel

SHORTEST = 4
"""A shorter value would blot out innocent text; it is not a secret that could be kept anyway."""
LINE = 8
"""A shorter line of a secret of several lines may be anything, such as a brace."""
MASK = "***"

Model = TypeVar("Model", bound=BaseModel)


def _spellings(value: str) -> set[str]:
    """A value as others may show it: as it is, its lines, escaped in a repr or in JSON, quoted in a URL."""
    whole = {value, value.strip(), *(line.strip() for line in value.splitlines() if len(line.strip()) >= LINE)}
    return {
        spelt for one in whole
        for spelt in (one, repr(one)[1:-1], repr(one.encode())[2:-1], json.dumps(one)[1:-1], quote(one), quote(one, safe=""))
    }  # fmt: skip


class Secrets:
    """The secret values that this process has read."""

    def __init__(self) -> None:
        self._values: set[str] = set()

    def learn(self, value: str) -> str:
        """Remember a value as secret; give it back."""
        self._values |= {spelt for spelt in _spellings(value) if len(spelt) >= SHORTEST}
        return value

    def clean(self, value: Any) -> Any:
        """The same data with every secret masked, in keys too."""
        if not self._values:
            return value
        if isinstance(value, str):
            for secret in sorted(self._values, key=len, reverse=True):  # the whole before its parts
                value = value.replace(secret, MASK)
            return value
        if isinstance(value, dict):
            return {self.clean(key): self.clean(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.clean(item) for item in value)
        return value

    def clean_model(self, model: Model) -> Model:
        """The same model with every secret masked."""
        if not self._values:
            return model
        return type(model).model_validate(self.clean(model.model_dump()))
