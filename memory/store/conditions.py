"""What makes a memory visible to a search, as SQL over `memories m` with parameters: never text of a client's."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from memory.filters import ISO_DATE, Every, Filter, Leaf, Non, Some
from memory.store import lexemes

_COLUMNS = {
    "category": ("m.category", "text"),
    "source": ("m.source", "text"),
    "container_tag": ("m.container_tag", "text"),
    "type": ("m.type", "text"),
    "sequence": ("m.sequence", "text"),
    "external_id": ("m.external_id", "text"),
    "created_by.id": ("m.created_by", "uuid"),
    "created_at": ("m.created_at", "timestamptz"),
    "updated_at": ("m.updated_at", "timestamptz"),
    "importance": ("m.importance", "float8"),
}
_PLACE = re.compile(r"\s*[+-]?\d+\s*")
_SIGNS = {"eq": "=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


@dataclass(frozen=True)
class Filters:
    """What a result must be, besides unexpired and, unless asked otherwise, current.

    `as_of`: current and unexpired at that time instead of now. `phrases`: each must stand in the text.
    """

    category: str | None = None
    container_tag: str | None = None
    metadata: dict[str, Any] | None = None
    filter: Filter | None = None
    phrases: Sequence[str] = ()
    as_of: datetime | None = None
    include_archived: bool = False
    include_superseded: bool = False
    without: Sequence[UUID] = ()

    @property
    def narrow(self) -> bool:
        """Whether anything is asked for that could leave only a few memories."""
        return bool(
            self.category is not None
            or self.container_tag is not None
            or self.metadata
            or self.filter is not None
            or self.phrases
        )


@dataclass(frozen=True)
class Conditions:
    """`visible`: filters alone. `result`: also the phrases, which a neighbour need not hold. `values`: parameters."""

    visible: str
    result: str
    values: dict[str, Any]


def conditions(filters: Filters) -> Conditions:
    """The filters as SQL conditions on `memories m`."""
    values: dict[str, Any] = {"as_of": filters.as_of}
    at = "now()" if filters.as_of is None else "%(as_of)s::timestamptz"
    asked = [f"(m.expires_at is null or m.expires_at > {at})"]
    if filters.as_of is not None:
        asked.append(f"m.valid_from <= {at} and (m.valid_to is null or m.valid_to > {at})")
    elif not filters.include_superseded:
        asked.append("m.is_latest")
    if not filters.include_archived:
        asked.append("not m.archived")
    for name, value, condition in (
        ("without", list(filters.without) or None, "m.id <> all (%(without)s::uuid[])"),
        ("category", filters.category, "m.category = %(category)s::text"),
        ("tag", filters.container_tag, "m.container_tag = %(tag)s::text"),
        ("metadata", Jsonb(filters.metadata) if filters.metadata else None, "m.metadata @> %(metadata)s::jsonb"),
    ):
        if value is not None:
            values[name] = value
            asked.append(condition)
    if filters.filter is not None:
        asked.append(_compiled(filters.filter, values))
    visible = " and ".join(asked)
    for number, phrase in enumerate(filters.phrases):
        values[f"phrase_{number}"] = lexemes.plain(phrase)
        values["apostrophes"] = lexemes.APOSTROPHES
        values["plain_apostrophes"] = "'" * len(lexemes.APOSTROPHES)
        written = "translate(lower(normalize(m.text, nfc)), %(apostrophes)s, %(plain_apostrophes)s)"
        asked.append(f"strpos(regexp_replace({written}, '\\s+', ' ', 'g'), lower(%(phrase_{number})s::text)) > 0")
    return Conditions(visible, " and ".join(asked), values)


def contained(filters: Filters) -> dict[str, Any]:
    """Metadata that every visible memory contains: what an index of containment can be asked for."""
    result: dict[str, Any] = dict(filters.metadata or {})
    for leaf in _demanded(filters.filter) if filters.filter is not None else ():
        inner = leaf.operand
        for key in reversed(leaf.path[1:]):
            inner = {key: inner}
        # One of two that speak of the same key is enough: the conditions themselves are asked as well.
        result.setdefault(leaf.path[0], inner)
    return result


def _demanded(node: Filter) -> Iterator[Leaf]:
    """Equalities on metadata that no memory gets around."""
    if isinstance(node, Every):
        for part in node.parts:
            yield from _demanded(part)
    elif isinstance(node, Leaf) and node.kind == "metadata" and node.op == "eq" and not _may_be_places(node.path[1:]):
        yield node


def _may_be_places(path: Sequence[str]) -> bool:
    """Whether some part could be a place in an array, which no index of containment knows."""
    return any(_PLACE.fullmatch(part) for part in path)


def _compiled(node: Filter, values: dict[str, Any]) -> str:
    """A condition that is true or false, never null, with its parameters added to `values`."""
    if isinstance(node, Every):
        return "(" + (" and ".join(_compiled(part, values) for part in node.parts) or "true") + ")"
    if isinstance(node, Some):
        return "(" + (" or ".join(_compiled(part, values) for part in node.parts) or "false") + ")"
    if isinstance(node, Non):
        return f"(not {_compiled(node.part, values)})"
    if node.kind == "metadata":
        return _of_metadata(node, values)
    return _of_column(node, values)


def _parameter(values: dict[str, Any], value: Any) -> str:
    name = f"filter_{len(values)}"
    values[name] = value
    return f"%({name})s"


def _of_column(leaf: Leaf, values: dict[str, Any]) -> str:
    column, its_type = _COLUMNS[leaf.field]
    if leaf.op == "exists":
        return f"({column} is {'not ' if leaf.operand else ''}null)"
    if leaf.op == "in":
        return f"coalesce({column} = any ({_parameter(values, leaf.operand)}::{its_type}[]), false)"
    value = f"{_parameter(values, leaf.operand)}::{its_type}"
    if leaf.op == "contains":
        return f"coalesce(strpos({column}, {value}) > 0, false)"
    if leaf.op == "ne":
        return f"(not coalesce({column} = {value}, false))"
    return f"coalesce({column} {_SIGNS[leaf.op]} {value}, false)"


def _of_metadata(leaf: Leaf, values: dict[str, Any]) -> str:
    found = f"(m.metadata #> {_parameter(values, leaf.path)}::text[])"
    if leaf.op == "exists":
        return f"({found} is {'not ' if leaf.operand else ''}null)"
    if leaf.op == "in":
        listed = _parameter(values, [Jsonb(value) for value in leaf.operand])
        return f"coalesce({found} = any ({listed}::jsonb[]), false)"
    if leaf.op in ("eq", "ne"):
        equal = f"coalesce({found} = {_parameter(values, Jsonb(leaf.operand))}::jsonb, false)"
        return equal if leaf.op == "eq" else f"(not {equal})"
    if leaf.op == "contains":
        return _contains(found, leaf.operand, values)
    if isinstance(leaf.operand, datetime):
        return _as_date(found, _SIGNS[leaf.op], _parameter(values, leaf.operand), _parameter(values, ISO_DATE))
    number = f"(({_parameter(values, Jsonb(leaf.operand))}::jsonb)::numeric)"
    compared = f"({found})::numeric {_SIGNS[leaf.op]} {number}"
    return f"coalesce(case when jsonb_typeof({found}) = 'number' then {compared} end, false)"


def _contains(found: str, operand: Any, values: dict[str, Any]) -> str:
    holds = f"when 'array' then {found} @> {_parameter(values, Jsonb(operand))}::jsonb"
    within = (
        f"when 'string' then strpos({found} #>> '{{}}', {_parameter(values, operand)}::text) > 0"
        if isinstance(operand, str)
        else ""
    )
    return f"coalesce(case jsonb_typeof({found}) {holds} {within} else false end, false)"


def _as_date(found: str, sign: str, moment: str, form: str) -> str:
    written = f"({found} #>> '{{}}')"
    # Only what surely is a date is cast: a cast that fails would end the whole search.
    return f"""coalesce(
        case when jsonb_typeof({found}) = 'string' and {written} ~ {form}::text
        then case when pg_input_is_valid({written}, 'timestamptz')
             then {written}::timestamptz {sign} {moment}::timestamptz end
        end, false)"""
