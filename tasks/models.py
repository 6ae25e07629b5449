"""What the inputs and outputs of actions are made of: frozen models, and durations with a unit."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, GetPydanticSchema
from pydantic.json_schema import DEFAULT_REF_TEMPLATE, GenerateJsonSchema, JsonSchemaMode
from pydantic_core import PydanticCustomError, core_schema

from tasks.durations import format_duration, parse_duration


def _duration_schema(_source: Any, _handler: Any) -> core_schema.CoreSchema:
    """Take a timedelta or text with a unit ('90s'); give text with a unit back to JSON."""

    def parse(value: Any) -> timedelta:
        return value if isinstance(value, timedelta) else parse_duration(value)

    return core_schema.no_info_plain_validator_function(
        parse,
        serialization=core_schema.plain_serializer_function_ser_schema(format_duration, when_used="json"),
    )


def _duration_json_schema(_schema: Any, _handler: Any) -> dict[str, Any]:
    return {"type": "string", "pattern": r"^\s*([0-9.]+(ms|s|m|h|d)\s*)+$"}


Duration = Annotated[timedelta, GetPydanticSchema(_duration_schema, _duration_json_schema)]
"""A time with a unit in YAML and JSON ('500ms', '90s', '1h30m'), a timedelta in Python; bare numbers are refused."""


class JsonSchemas(GenerateJsonSchema):
    """JSON Schemas whose defaults can be typed into a runbook: '20s', not ISO 8601's 'PT20S'."""

    def encode_default(self, dft: Any) -> Any:
        """Write a duration as runbooks do."""
        return format_duration(dft) if isinstance(dft, timedelta) else super().encode_default(dft)


class Frozen(BaseModel):
    """Base of everything an action takes or gives: immutable, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=False)

    @classmethod
    def model_json_schema(
        cls,
        by_alias: bool | None = True,
        ref_template: str = DEFAULT_REF_TEMPLATE,
        schema_generator: type[GenerateJsonSchema] = JsonSchemas,
        mode: JsonSchemaMode = "validation",
        **more: Any,
    ) -> dict[str, Any]:
        """Give the model's JSON Schema, with durations as runbooks write them."""
        return super().model_json_schema(by_alias, ref_template, schema_generator, mode, **more)


WHICH_FIELDS = "which_fields"


def which_fields(message: str) -> PydanticCustomError:
    """An error for validators about which fields are given, whatever they hold: a plan tells it before any value is known."""
    return PydanticCustomError(WHICH_FIELDS, message)
