"""Actions with every kind of field and output, for tests of the plan; they never touch anything."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field, SecretStr, model_validator

from tasks.contract import Change, Duration, Frozen, Probe

NAMES = {
    "test.look": "tests.runbooks.actions:Look",
    "test.alter": "tests.runbooks.actions:Alter",
    "test.smash": "tests.runbooks.actions:Smash",
    "test.fence": "tests.runbooks.actions:Fence",
    "test.write": "tests.runbooks.actions:Write",
    "test.clumsy": "tests.runbooks.actions:Clumsy",
    "test.broken": "tests.runbooks.no_such_module:Nothing",
    "test.nothing": "tests.runbooks.actions:NAMES",
}


class Place(Frozen):
    host: str
    port: int = Field(5432, ge=1)


class Sight(Frozen):
    name: str
    count: int
    ratio: float
    well: bool
    at: datetime | None
    lasting: timedelta
    colour: Literal["red", "green"]
    place: Place
    places: tuple[Place, ...]
    by_name: Mapping[str, Place]
    tags: tuple[str, ...]


class Login(Frozen):
    host: str
    user: str = "me"
    password: SecretStr | None = None


class ByName(Frozen):
    kind: Literal["name"]
    name: str


class ByKey(Frozen):
    kind: Literal["key"]
    key: SecretStr


class Look(Probe[Sight]):
    """Look at something."""

    name: ClassVar[str] = "test.look"
    budget: ClassVar[timedelta] = timedelta(seconds=20)

    text: str | None = None
    count: int = 1
    ratio: float = 0.5
    well: bool = True
    at: datetime | None = None
    patience: Duration = timedelta(seconds=1)
    colour: Literal["red", "green"] = "red"
    url: str | None = Field(None, pattern="^https?://")
    place: Place | None = None
    places: tuple[Place, ...] = ()
    tags: tuple[str, ...] = ()
    facts: Mapping[str, str | int | bool | None] = Field(default_factory=dict)
    login: Login | None = None
    logins: Mapping[str, Login] = Field(default_factory=dict)
    token: SecretStr | None = None
    headers: Mapping[str, SecretStr] = Field(default_factory=dict)
    way: ByName | ByKey | None = Field(None, discriminator="kind")
    anything: Any = None

    @model_validator(mode="after")
    def _red_has_text(self) -> Look:
        if self.colour == "green" and not self.text:
            raise ValueError("green needs a text")
        return self

    def observe(self, clients: Any) -> Sight:
        raise NotImplementedError

    def done(self, state: Sight) -> bool:
        return True


class Done(Frozen):
    endpoint: str
    finished: datetime | None = None


class _Alteration(Change[Done]):
    where: str
    login: Login | None = None
    note: str | None = None
    since: datetime | None = None
    endpoint: str | None = None

    @property
    def target(self) -> str:
        return f"thing:{self.where}" + (f" at {self.endpoint}" if self.endpoint else "")

    def observe(self, clients: Any) -> Done:
        raise NotImplementedError

    def done(self, state: Done) -> bool:
        return True

    def describe(self, before: Done) -> str:
        return "change it"

    def act(self, before: Done, clients: Any) -> None:
        raise NotImplementedError


class Alter(_Alteration):
    """Alter something, and back."""

    name: ClassVar[str] = "test.alter"
    reversible: ClassVar[bool] = True
    budget: ClassVar[timedelta] = timedelta(seconds=40)


class Smash(_Alteration):
    """Change something for good."""

    name: ClassVar[str] = "test.smash"


class Fence(_Alteration):
    """Keep the old one out."""

    name: ClassVar[str] = "test.fence"
    fences: ClassVar[bool] = True
    reversible: ClassVar[bool] = True


class Write(_Alteration):
    """Make a second writer."""

    name: ClassVar[str] = "test.write"
    makes_writer: ClassVar[bool] = True
    reversible: ClassVar[bool] = True


class Nothing(BaseModel):
    pass


class Clumsy(Probe[Nothing]):
    """Have a validator that fails in its own way."""

    name: ClassVar[str] = "test.clumsy"

    value: str = ""

    @model_validator(mode="before")
    @classmethod
    def _stumble(cls, given: Any) -> Any:
        return given["no such key"]

    def observe(self, clients: Any) -> Nothing:
        raise NotImplementedError

    def done(self, state: Nothing) -> bool:
        return True
