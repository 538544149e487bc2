"""What the OpenAPI document says of a value beyond its checks, which alone would promise too much."""

from typing import Any

from pydantic import Field

_NOT_IN_NAMES = r"/\u0000-\u001f\u007f-\u009f"

SaysSomething = Field(json_schema_extra={"pattern": r"[^\s\u0000\u0085]"})
IsThere = Field(json_schema_extra={"pattern": r"[^\u0000]"})
IsAName = Field(json_schema_extra={"pattern": rf"^[^{_NOT_IN_NAMES}]*[^{_NOT_IN_NAMES}\s][^{_NOT_IN_NAMES}]*$"})


def _never_null(schema: dict[str, Any]) -> None:
    schema.pop("default")
    schema.update(schema.pop("anyOf")[0])


# None says that the field was left out. Who writes null is refused where the other fields are looked at.
CannotBeCleared = Field(json_schema_extra=_never_null)


def partial(schema: dict[str, Any]) -> None:
    """Of a body that changes what it names: it names something."""
    schema["anyOf"] = [{"required": [name]} for name in schema["properties"]]
