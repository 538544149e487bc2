"""Whatever is sent, the answer is JSON and not our fault."""

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from tests.api.conftest import Tenant

COLLECTIONS = "/v1/memory/collections"
PEOPLE = f"{COLLECTIONS}/people/memories"
FIELDS = [
    "text", "importance", "category", "source", "metadata", "container_tag", "sequence", "position", "expires_at",
    "query", "limit", "min_score", "mode", "metadata_filter", "include_archived", "name", "description",
]  # fmt: skip

# Any code point, lone surrogates and NUL included: JSON can spell them all.
_text = st.text(st.characters(codec=None, exclude_categories=()), max_size=40)
_word = st.sampled_from(["tea", "the", "ERR_1234", "a & b", "!", "'", "\\", "%", "hybrid", "2999-01-01", "\x00"])
_number = st.one_of(
    st.integers(), st.floats(), st.sampled_from([0, 1, 5, 10**400, -(2**63), 2**31, 1e308, 1e-320, -0.0])
)
_leaf = st.one_of(st.none(), st.booleans(), _number, _text, _word)
_value = st.recursive(
    _leaf, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_text, inner, max_size=4), max_leaves=12
)
_plain = st.fixed_dictionaries({"text": _word | _text, "query": _word | _text, "name": _word | _text})
_body = st.builds(
    lambda plain, more: {**plain, **more}, _plain, st.dictionaries(st.sampled_from(FIELDS), _value, max_size=4)
)

_many = settings(
    max_examples=40, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def _assert_ours(answer: Any) -> None:
    assert answer.status_code < 500, answer.text
    body = answer.json()
    if answer.status_code >= 400:
        assert isinstance(body["detail"], str)


@pytest.mark.parametrize(
    ("method", "path", "many"),
    [
        ("POST", COLLECTIONS, False),
        ("PUT", f"{COLLECTIONS}/people", False),
        ("POST", PEOPLE, False),
        ("POST", f"{COLLECTIONS}/people/memories/bulk", True),
        ("POST", f"{COLLECTIONS}/people/search", False),
        ("POST", "/v1/memory/search", False),
    ],
)
@_many
@given(body=_body)
def test_a_body_of_anything(
    client: TestClient, tenant: Tenant, method: str, path: str, many: bool, body: dict[str, Any]
) -> None:
    headers = {**tenant.headers, "Content-Type": "application/json"}

    _assert_ours(client.request(method, path, headers=headers, content=json.dumps([body] if many else body)))
    _assert_ours(client.get(PEOPLE, headers=tenant.headers))


@_many
@given(changes=st.lists(st.dictionaries(st.sampled_from(FIELDS), _value, max_size=3), max_size=3))
def test_patches_of_anything(client: TestClient, tenant: Tenant, changes: list[dict[str, Any]]) -> None:
    path = PEOPLE
    path = f"{path}/{client.post(path, headers=tenant.headers, json={'text': 'tea'}).json()['id']}"
    headers = {**tenant.headers, "Content-Type": "application/json"}

    for change in changes:
        _assert_ours(client.patch(path, headers=headers, content=json.dumps(change)))
    _assert_ours(client.get(path, headers=tenant.headers))


@_many
@given(name=st.binary(min_size=1, max_size=30), tag=st.binary(max_size=30), limit=st.binary(max_size=3))
def test_addresses_of_anything(client: TestClient, tenant: Tenant, name: bytes, tag: bytes, limit: bytes) -> None:
    path = f"{COLLECTIONS}/{quote(name, safe='')}"
    query = f"container_tag={quote(tag)}&category={quote(tag)}&limit={quote(limit)}&{quote(tag)}"

    for method, address in (
        ("GET", path),
        ("DELETE", path),
        ("GET", f"{path}/memories?{query}"),
        ("GET", f"{path}/memories/{quote(tag, safe='')}"),
        ("GET", f"/v1/memory/files/{quote(name)}?{query}&signature={quote(tag)}"),
    ):
        _assert_ours(client.request(method, address, headers=tenant.headers))


def _create(client: TestClient, tenant: Tenant, metadata: dict[str, Any]) -> Any:
    return client.post(PEOPLE, headers=tenant.headers, json={"text": "a", "metadata": metadata}).json()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b'"text"',
        b"\xff\xfe{}",
        b"[" * 100_000,
        b'{"text": "a", "importance": NaN}',
        b'{"text": "a", "importance": Infinity}',
        b'{"text": "a", "importance": 1e999}',
        b'{"text": "a", "metadata": {"n": -Infinity}}',
        b'{"text": "a", "metadata": {"n": 1e999}}',
        b'{"text": "a", "metadata": {"n": ' + b"9" * 5000 + b"}}",
        b'{"text": "a", "position": ' + b"9" * 400 + b"}",
        b'{"text": "\\ud800"}',
        b'{"text": "a", "category": "\\udc00"}',
        b'{"text": "a", "metadata": {"\\ud800": 1}}',
        b'{"text": "a", "metadata": {"a": ["\\ud800"]}}',
        b'{"\\ud800": 1}',
        b'{"text": "a", "metadata": ' + b'{"a":' * 100 + b"1" + b"}" * 100 + b"}",
        b'{"text": "a", "metadata": {"a": ' + b"[" * 300 + b"]" * 300 + b"}}",
        b'{"text": "a", "metadata": ' + b'{"a":' * 950 + b"1" + b"}" * 950 + b"}",
    ],
)
def test_hostile_json_is_422_never_500(client: TestClient, tenant: Tenant, body: bytes) -> None:
    answer = client.post(PEOPLE, headers={**tenant.headers, "Content-Type": "application/json"}, content=body)

    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)


def test_large_but_proper_numbers_survive(client: TestClient, tenant: Tenant) -> None:
    metadata = {"big": 10**400, "tiny": 5e-324, "precise": 0.1 + 0.2}

    assert _create(client, tenant, metadata)["metadata"] == metadata


def test_metadata_of_the_deepest_kind_can_be_read_again(client: TestClient, tenant: Tenant) -> None:
    metadata: dict[str, Any] = {}
    for _ in range(63):
        metadata = {"a": metadata}

    made = _create(client, tenant, metadata)

    assert client.get(f"{PEOPLE}/{made['id']}", headers=tenant.headers).json()["metadata"] == metadata
