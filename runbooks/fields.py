"""What pydantic fields take and states give, as far as it can be known before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime, timedelta
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import AwareDatetime, BaseModel, NaiveDatetime, SecretBytes, SecretStr
from pydantic.fields import FieldInfo

from runbooks.paths import Path

Types = tuple[Any, ...]
"""The alternatives of an annotation, without Annotated and None."""

_SCALARS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    datetime: "a time",
    AwareDatetime: "a time",
    NaiveDatetime: "a time",
    timedelta: "a duration",
    SecretStr: "a secret",
    SecretBytes: "a secret",
}
_FITS = {("a whole number", "a number"), ("a text", "a time"), ("a text", "a duration")}
SAMPLE_TIME = datetime.fromisoformat("2000-01-01T00:00:00+00:00")


def alternatives(annotation: Any) -> Types:
    """What an annotation allows, one by one."""
    if hasattr(annotation, "__value__"):  # a named alias, such as pydantic's JsonValue
        return alternatives(annotation.__value__)
    if hasattr(annotation, "__metadata__"):
        return alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return tuple(each for part in get_args(annotation) for each in alternatives(part))
    return () if annotation in (None, NoneType) else (annotation,)


def fields_of(model: type[BaseModel]) -> Mapping[str, FieldInfo]:
    """A model's fields by the names that YAML uses."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def output_at(state: type[BaseModel], path: Sequence[str]) -> Types | None:
    """What stands at a path in a state; None when no alternative has it. (Any,) where it cannot be known."""
    types: Types = (state,)
    for part in path:
        found = [each for one in types for each in _attribute(one, part)]
        if not found:
            return None
        types = tuple(found)
    return types


def _attribute(one: Any, part: str) -> Types:
    if is_model(one):
        if part in one.model_fields:
            return alternatives(one.model_fields[part].annotation) or (Any,)
        computed = one.model_computed_fields.get(part)
        return alternatives(computed.return_type) if computed else ()
    kind = _container(one)
    if kind == "a mapping":
        return alternatives(get_args(one)[-1]) if get_args(one) else (Any,)
    if kind == "a list":
        return _items(one) if part.isdecimal() else ()
    return () if one in _SCALARS else (Any,)


def is_model(one: Any) -> bool:
    """Whether a type is a pydantic model."""
    return isinstance(one, type) and issubclass(one, BaseModel)


def is_literal(one: Any) -> bool:
    """Whether a type is one of constant values."""
    origin: Any = get_origin(one)
    return origin is Literal


def _container(one: Any) -> str:
    origin = get_origin(one) or one
    if not isinstance(origin, type) or issubclass(origin, str | bytes):
        return ""
    if issubclass(origin, Mapping):
        return "a mapping"
    return "a list" if issubclass(origin, Sequence | AbstractSet) else ""


def _items(one: Any) -> Types:
    found = tuple(each for part in get_args(one) if part is not Ellipsis for each in alternatives(part))
    return found or (Any,)


def leaves(types: Types, value: Any, path: Path = ()) -> Iterator[tuple[Path, Any, Types]]:
    """Every value in a tree of YAML that is no mapping and no list, with what the field at its place takes."""
    if isinstance(value, Mapping):
        likely = _likely(types, value)
        for key, item in value.items():
            wanted = tuple(each for one in likely for each in _attribute(one, str(key)))
            yield from leaves(wanted or (Any,), item, (*path, key))
    elif isinstance(value, list | tuple):
        wanted = tuple(each for one in types for each in (_items(one) if _container(one) == "a list" else (Any,)))
        for index, item in enumerate(value):
            yield from leaves(wanted or (Any,), item, (*path, index))
    else:
        yield path, value, types


def _likely(types: Types, value: Mapping[str, Any]) -> Types:
    """Of several models those whose constant fields say what the value says."""
    likely = tuple(one for one in types if not is_model(one) or _constants_fit(one, value))
    return likely or types


def _constants_fit(model: type[BaseModel], value: Mapping[str, Any]) -> bool:
    for name, field in fields_of(model).items():
        options = alternatives(field.annotation)
        if name in value and len(options) == 1 and is_literal(options[0]):
            item = value[name]
            if not isinstance(item, str | int) or item not in get_args(options[0]):
                return False
    return True


def is_secret(types: Types) -> bool:
    """Whether whatever stands here is kept secret."""
    return bool(types) and all(one in (SecretStr, SecretBytes) for one in types)


def kinds(one: Any) -> set[str]:
    """The kinds of value that a type stands for; empty when it cannot be known."""
    if is_literal(one):
        return {kind for option in get_args(one) for kind in kinds(type(option))}
    if isinstance(one, type) and issubclass(one, Enum):
        return {kind for member in one for kind in kinds(type(member.value))}
    if isinstance(one, type):
        for known, kind in _SCALARS.items():
            if issubclass(one, known):
                return {kind}
        if issubclass(one, date):
            return {"a time"}
    return {_container(one)} - {""}


def fits(source: Types, wanted: Types) -> bool:
    """Whether a value of `source` may be given where `wanted` is; True where it cannot be known."""
    return any(_pair(one, other) for one in source for other in wanted) or not source or not wanted


def _pair(source: Any, wanted: Any) -> bool:
    if is_model(source) or is_model(wanted):
        if is_model(source) and is_model(wanted):
            return issubclass(source, wanted)
        other = kinds(wanted if is_model(source) else source)
        return not other or other == {"a mapping"}
    given, taken = kinds(source), kinds(wanted)
    if not given or not taken:
        return True
    if given == taken == {"a list"}:
        return fits(_items(source), _items(wanted))
    return bool(given & taken) or any((one, other) in _FITS for one in given for other in taken)


def is_scalar(types: Types) -> bool:
    """Whether what stands here can stand within a text."""
    return any(not (is_model(one) or _container(one)) for one in types)


def describe(types: Types) -> str:
    """Say what a field takes or gives."""
    words: list[str] = []
    for one in types:
        if is_model(one):
            words.append(f"a {one.__name__}")
        elif _container(one) == "a list":
            words.append("a list of " + describe(_items(one)).removeprefix("a "))
        else:
            words.extend(sorted(kinds(one)) or ["any value"])
    return " or ".join(dict.fromkeys(words)) or "any value"


def sample(types: Types, variant: int = 0) -> Any:
    """A value that a field of these types takes, to stand for one that is not known yet; variants differ."""
    for one in types:
        if is_literal(one):
            return get_args(one)[min(variant, len(get_args(one)) - 1)]
        if is_model(one):
            return one.model_construct()
        if isinstance(one, type) and issubclass(one, Enum):
            members = list(one)
            return members[min(variant, len(members) - 1)]
        kind = next(iter(kinds(one)), "")
        if kind in _SAMPLES:
            return _SAMPLES[kind](variant)
    return f"unknown-{variant}"


_SAMPLES: dict[str, Any] = {
    "true or false": bool,
    "a whole number": lambda variant: 1 + variant,
    "a number": lambda variant: 0.5 + variant / 4,
    "a time": lambda variant: SAMPLE_TIME + timedelta(days=variant),
    "a duration": lambda variant: timedelta(seconds=1 + variant),
    "a mapping": lambda _variant: {},
    "a list": lambda _variant: [],
}
