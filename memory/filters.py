"""Conditions on memories as clients write them: a small JSON language, checked here, compiled in the store."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    PrivateAttr,
    Tag,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

MAX_DEPTH = 5
MAX_LEAVES = 50
_MOST_VALUES = 1_000
_LONGEST_FIELD = 256

Scalar = str | int | float | bool | None
Kind = Literal["metadata", "text", "id", "time", "number"]
Op = Literal["eq", "ne", "in", "exists", "gt", "gte", "lt", "lte", "contains"]

KINDS: dict[str, Kind] = {
    "category": "text",
    "source": "text",
    "container_tag": "text",
    "type": "text",
    "sequence": "text",
    "external_id": "text",
    "created_by.id": "id",
    "created_at": "time",
    "updated_at": "time",
    "importance": "number",
}
_ORDER = ("gt", "gte", "lt", "lte")
_OPS: dict[Kind, tuple[str, ...]] = {
    "metadata": ("eq", "ne", "in", "exists", *_ORDER, "contains"),
    "text": ("eq", "ne", "in", "exists", "contains"),
    "id": ("eq", "ne", "in", "exists"),
    "time": ("eq", "ne", "in", "exists", *_ORDER),
    "number": ("eq", "ne", "in", "exists", *_ORDER),
}
# What counts as a date inside metadata, too: there the store asks with the same expression.
ISO_DATE = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,9})?)?"
    r"(Z|[+-](0[0-9]|1[0-5])(:?[0-5][0-9])?)?)?$"
)
_METADATA_FIELD = r"^metadata(\.[^.\u0000]+)+$"


class Leaf(BaseModel):
    """One condition. `value` is what `op` compares with: for `in` a list, for `exists` true (the default) or false.

    A part of a metadata path is a key or, in an array, a place from 0.
    """

    model_config = ConfigDict(extra="forbid", serialize_by_alias=True)

    field: str = Field(max_length=_LONGEST_FIELD)
    op: Op
    value: Any = None
    _operand: Any = PrivateAttr(default=None)

    @property
    def kind(self) -> Kind:
        return KINDS.get(self.field, "metadata")

    @property
    def path(self) -> list[str]:
        """The keys of a metadata field, outermost first."""
        return self.field.split(".")[1:]

    @property
    def operand(self) -> Any:
        """`value` as the field's kind has it: a time of a date, a UUID of an id (None when it cannot be one)."""
        return self._operand

    @model_validator(mode="after")
    def _meaningful(self) -> "Leaf":
        if self.field not in KINDS and re.fullmatch(_METADATA_FIELD, self.field) is None:
            raise ValueError(f"field must be metadata.<path> or one of {', '.join(KINDS)}")
        if self.op not in _OPS[self.kind]:
            raise ValueError(f"{self.field} takes {', '.join(_OPS[self.kind])}")
        self._operand = self._checked()
        return self

    def _checked(self) -> Any:
        if self.op == "exists":
            if self.value is not None and not isinstance(self.value, bool):
                raise ValueError("exists takes true or false")
            return self.value is not False
        if "value" not in self.model_fields_set:
            raise ValueError(f"{self.op} needs a value")
        if self.op == "in":
            if not isinstance(self.value, list) or len(self.value) > _MOST_VALUES:
                raise ValueError(f"in takes a list of at most {_MOST_VALUES} values")
            return [_PLAIN[self.kind](one) for one in self.value]
        if self.op in _ORDER and self.kind == "metadata":
            return _time(self.value) if isinstance(self.value, str) else _number(self.value)
        return _PLAIN[self.kind](self.value)

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        # Which values go with which field, so that what fits the schema is what is accepted.
        described = handler(core)
        resolved = handler.resolve_ref_schema(described)
        resolved.clear()
        resolved.update({"title": "Leaf", "description": cls.__doc__, "anyOf": list(_leaf_schemas())})
        return described


class Every(BaseModel):
    """All of these; an empty list is true."""

    model_config = ConfigDict(extra="forbid", serialize_by_alias=True)

    parts: list["Node"] = Field(alias="and", max_length=MAX_LEAVES)


class Some(BaseModel):
    """At least one of these; an empty list is false."""

    model_config = ConfigDict(extra="forbid", serialize_by_alias=True)

    parts: list["Node"] = Field(alias="or", max_length=MAX_LEAVES)


class Non(BaseModel):
    """Whatever the part is not."""

    model_config = ConfigDict(extra="forbid", serialize_by_alias=True)

    part: "Node" = Field(alias="not")


def _form(value: Any) -> str | None:
    if isinstance(value, BaseModel):
        return {Every: "and", Some: "or", Non: "not", Leaf: "field"}.get(type(value))
    forms = [form for form in ("and", "or", "not", "field") if isinstance(value, dict) and form in value]
    return forms[0] if len(forms) == 1 else None


Node = Annotated[
    Annotated[Every, Tag("and")]
    | Annotated[Some, Tag("or")]
    | Annotated[Non, Tag("not")]
    | Annotated[Leaf, Tag("field")],
    Discriminator(
        _form,
        custom_error_type="filter",
        custom_error_message='a filter is {"and": […]}, {"or": […]}, {"not": …} or {"field", "op", "value"}',
    ),
]


def _bounded(value: Any) -> Any:
    """Refuses what is too deep before anything walks down into it."""
    level, depth = [value], 0
    while level := [below for one in level for below in _below(one)]:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"a filter is at most {MAX_DEPTH} levels deep")
    return value


def _below(value: Any) -> list[Any]:
    if not isinstance(value, dict):
        return []
    lists = [value[form] for form in ("and", "or") if isinstance(value.get(form), list)]
    return [one for parts in lists for one in parts] + ([value["not"]] if "not" in value else [])


def _few(node: Any) -> Any:
    if sum(1 for _ in leaves(node)) > MAX_LEAVES:
        raise ValueError(f"a filter has at most {MAX_LEAVES} conditions")
    return node


def leaves(node: "Every | Some | Non | Leaf") -> Iterator["Every | Some | Leaf"]:
    """What the tree ends in: its conditions, and lists that are empty."""
    if isinstance(node, Leaf):
        yield node
        return
    parts = [node.part] if isinstance(node, Non) else node.parts
    if not parts and not isinstance(node, Non):
        yield node
    for part in parts:
        yield from leaves(part)


Every.model_rebuild()
Some.model_rebuild()
Non.model_rebuild()
Filter = Annotated[Node, BeforeValidator(_bounded), AfterValidator(_few)]


def _text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError("this field is compared with text")
    return None if value is None else _storable(value)


def _scalar(value: Any) -> Scalar:
    if isinstance(value, str):
        return _storable(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return _number(value)
    raise ValueError("a value is text, a number, true, false or null")


def _storable(value: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("text holds a lone surrogate, which is not valid Unicode") from error
    # Postgres text cannot hold NUL, and so nothing that is stored does.
    return value.replace("\x00", "")


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("compare with a number or a date")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("the number is too large")
    return value


def _fraction(value: Any) -> float:
    try:
        return float(_number(value))
    except OverflowError as error:
        raise ValueError("the number is too large") from error


def _time(value: Any) -> datetime:
    if isinstance(value, str) and re.fullmatch(ISO_DATE, value):
        try:
            parsed = datetime.fromisoformat(value)
            return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise ValueError("a date is written as in 2026-01-31 or 2026-01-31T12:00:00Z")


def _id(value: Any) -> UUID | None:
    text = _text(value)
    try:
        return None if text is None else UUID(text)
    except ValueError:
        # What cannot be an id is the id of nobody.
        return None


_PLAIN: dict[Kind, Callable[[Any], Any]] = {
    "metadata": _scalar,
    "text": _text,
    "id": _id,
    "time": _time,
    "number": _fraction,
}


def _leaf_schemas() -> Iterator[dict[str, Any]]:
    text: dict[str, Any] = {"type": ["string", "null"]}
    scalar: dict[str, Any] = {"type": ["string", "number", "boolean", "null"]}
    number: dict[str, Any] = {"type": "number"}
    time: dict[str, Any] = {"type": "string", "pattern": ISO_DATE}
    plain: dict[Kind, dict[str, Any]] = {"metadata": scalar, "text": text, "id": text, "time": time, "number": number}
    for kind in plain:
        names = [name for name, its in KINDS.items() if its == kind]
        field = (
            {"enum": names} if names else {"type": "string", "pattern": _METADATA_FIELD, "maxLength": _LONGEST_FIELD}
        )
        takes = _OPS[kind]
        equal = [op for op in ("eq", "ne", "contains") if op in takes]
        yield _leaf_schema(field, equal, plain[kind])
        yield _leaf_schema(field, ["in"], {"type": "array", "items": plain[kind], "maxItems": _MOST_VALUES})
        yield _leaf_schema(field, ["exists"], {"type": ["boolean", "null"]})
        if "gt" in takes:
            order = {"anyOf": [number, time]} if kind == "metadata" else plain[kind]
            yield _leaf_schema(field, list(_ORDER), order)


def _leaf_schema(field: Any, ops: Sequence[str], value: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"field": field, "op": {"enum": ops}, "value": value},
        "required": ["field", "op", *([] if ops == ["exists"] else ["value"])],
        "additionalProperties": False,
    }
