"""The header `Idempotency-Key`: what is sent again is answered again, and done once."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from api import idempotency
from memory.agents import GrantWanted, KeyCreate
from memory.errors import Unavailable
from memory.idempotency import Idempotency
from memory.schemas import MemoryCreate
from memory.services import Services
from memory.settings import Settings
from tests.api.conftest import Tenant
from tests.api.routes import GUARDED, Route, request_of
from tests.conftest import Headers

PEOPLE = "/v1/memory/collections/people/memories"
POSTS = [route for route in GUARDED if route.method == "POST"]
ROTATION = "/v1/memory/admin/rotate-key"
# A key, or links that whoever has them may use.
WITH_A_SECRET = {
    "/v1/memory/keys",
    ROTATION,
    "/v1/memory/collections/{collection}/memories/upload",
    "/v1/memory/collections/{collection}/memories/folder",
    "/v1/memory/collections/{collection}/memories/{memory_id}/images",
    "/v1/memory/collections/{collection}/drop/presign",
}


@pytest.fixture
def as_owner(settings: Settings) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    assert settings.database_owner_url is not None
    with psycopg.connect(settings.database_owner_url.get_secret_value(), autocommit=True) as connection:
        yield connection


def _once(headers: Headers, key: str | None = None) -> Headers:
    return {**headers, "Idempotency-Key": key or str(uuid4())}


def _count(client: TestClient, tenant: Tenant, path: str = PEOPLE) -> int:
    return int(client.get(path, headers=tenant.headers).headers["X-Total-Count"])


def _is_replayed(answer: Response) -> bool:
    return answer.headers.get("Idempotent-Replayed") == "true"


# Every route


def test_every_route_without_heed_is_a_route_and_has_a_reason() -> None:
    assert idempotency.HEEDLESS.keys() <= {route.path for route in POSTS}
    assert all(idempotency.HEEDLESS.values())


@pytest.mark.parametrize("route", [route for route in POSTS if route.path not in idempotency.HEEDLESS], ids=str)
def test_every_other_post_is_carried_out_once(
    client: TestClient, services: Services, tenant: Tenant, as_owner: psycopg.Connection[Any], route: Route
) -> None:
    memory = services.memories.create(tenant.caller, "harbour", MemoryCreate(text="an anchor"))
    sent = request_of(route, memory_id=str(memory.id))
    headers = _once(tenant.headers)

    first = client.request(**sent, headers=headers)
    audited = _audited(as_owner, tenant)
    if route.path == ROTATION:
        headers["Authorization"] = f"Bearer {first.json()['api_key']}"
    second = client.request(**sent, headers=headers)

    assert first.status_code < 300, first.text
    assert not _is_replayed(first)
    assert audited > 0
    assert _audited(as_owner, tenant) == audited
    if route.path in WITH_A_SECRET:
        assert second.status_code == 409
        assert "secret" in second.json()["detail"]
    else:
        assert (second.status_code, second.content) == (first.status_code, first.content)
        assert _is_replayed(second)
        assert second.headers["content-type"] == first.headers["content-type"]
        assert second.headers.get("etag") == first.headers.get("etag")


@pytest.mark.parametrize("route", POSTS, ids=str)
def test_the_header_is_in_the_specification_where_it_is_heeded(client: TestClient, route: Route) -> None:
    operation = client.get("/openapi.json").json()["paths"][route.path]["post"]

    named = "Idempotency-Key" in [parameter["name"] for parameter in operation.get("parameters", [])]

    assert named is (route.path not in idempotency.HEEDLESS)


# Sameness


def test_without_the_header_each_post_creates(client: TestClient, tenant: Tenant) -> None:
    for _ in range(2):
        assert client.post(PEOPLE, headers=tenant.headers, json={"text": "Ada"}).status_code == 201
    assert _count(client, tenant) == 2


def test_another_body_under_the_same_key_is_409(client: TestClient, tenant: Tenant) -> None:
    headers = _once(tenant.headers)
    client.post(PEOPLE, headers=headers, json={"text": "Ada"})

    answer = client.post(PEOPLE, headers=headers, json={"text": "Grace"})

    assert answer.status_code == 409
    assert "another request" in answer.json()["detail"]
    assert client.post(PEOPLE, headers=headers, json={"text": "Ada"}, params={"x": "1"}).status_code == 409
    assert _count(client, tenant) == 1


def test_the_same_json_spelt_otherwise_is_the_same(client: TestClient, tenant: Tenant) -> None:
    headers = {**_once(tenant.headers), "Content-Type": "application/json"}
    first = client.post(PEOPLE, headers=headers, content=b'{"text": "Ada", "importance": 0.5}')

    second = client.post(PEOPLE, headers=headers, content=b'{"importance":0.5,\n "text":"\\u0041da"}')

    assert _is_replayed(second)
    assert second.json() == first.json()


def test_a_key_counts_for_one_path_and_one_caller(
    client: TestClient, services: Services, tenant: Tenant, new_tenant: Callable[..., Tenant]
) -> None:
    other = services.accounts.create_key(tenant.caller, KeyCreate())
    callers = [tenant.headers, {"Authorization": f"Bearer {other.api_key}"}, new_tenant().headers]

    answers = [
        client.post(path, headers=_once(headers, "the-same"), json={"text": "Ada"})
        for headers in callers
        for path in (PEOPLE, PEOPLE.replace("people", "others"))
    ]

    assert [answer.status_code for answer in answers] == [201] * 6
    assert not any(map(_is_replayed, answers))
    assert len({answer.json()["id"] for answer in answers}) == 6


def test_a_drop_is_known_by_its_fields_and_the_bytes_of_its_files(client: TestClient, tenant: Tenant) -> None:
    path, headers = "/v1/memory/collections/people/drop", _once(tenant.headers)

    def send(content: bytes, name: str = "a.txt", **fields: str) -> Response:
        # The boundary is another one each time.
        return client.post(
            path, headers=headers, files={"files": (name, content)}, data={"async_ingest": "true", **fields}
        )

    first = send(b"Ada" * 1000)

    assert first.status_code == 202
    assert send(b"Ada" * 1000).json() == first.json()
    for other in (send(b"Ada" * 999), send(b"Ada" * 1000, "b.txt"), send(b"Ada" * 1000, category="x")):
        assert other.status_code == 409


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "ä", "\t"])
def test_what_is_no_key_is_422(client: TestClient, tenant: Tenant, key: str) -> None:
    headers = [(name.encode(), value.encode()) for name, value in tenant.headers.items()]
    headers.append((b"Idempotency-Key", key.encode()))

    answer = client.post(PEOPLE, headers=headers, json={"text": "Ada"})

    assert answer.status_code == 422
    assert "Idempotency-Key" in answer.json()["detail"]
    assert _count(client, tenant) == 0


@pytest.mark.parametrize("content_type", ["multipart/form-data; boundary=x", "application/x-www-form-urlencoded", ""])
def test_a_body_that_is_none_is_422(client: TestClient, tenant: Tenant, content_type: str) -> None:
    headers = {**_once(tenant.headers), "Content-Type": content_type}

    assert client.post(PEOPLE, headers=headers).status_code == 422


def test_a_broken_form_is_refused(client: TestClient, tenant: Tenant) -> None:
    headers = {**_once(tenant.headers), "Content-Type": "multipart/form-data; boundary=x"}

    answers = [
        client.post("/v1/memory/collections/people/drop", headers=headers, content=content)
        for content in (b"--x\r\nnonsense", b"--y\r\n\r\n", b"")
    ]

    assert {answer.status_code for answer in answers} <= {400, 422}


def test_a_name_in_the_path_counts_however_it_is_encoded(client: TestClient, tenant: Tenant) -> None:
    headers = _once(tenant.headers)
    first = client.post("/v1/memory/collections/p%65ople/memories", headers=headers, json={"text": "Ada"})

    assert _is_replayed(client.post(PEOPLE, headers=headers, json={"text": "Ada"}))
    assert first.status_code == 201


# Refusals and losses


def test_what_was_refused_may_be_tried_again(
    client: TestClient, services: Services, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = _once(tenant.headers)

    def down(_texts: object) -> Any:
        raise Unavailable("the embedder does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(services.memories._embedding, "embed", down)
        assert client.post(PEOPLE, headers=headers, json={"text": "Ada"}).status_code == 503

    again = client.post(PEOPLE, headers=headers, json={"text": "Ada"})

    assert again.status_code == 201
    assert not _is_replayed(again)
    assert _count(client, tenant) == 1


def test_a_refusal_is_not_replayed(client: TestClient, tenant: Tenant) -> None:
    client.post("/v1/memory/collections", headers=tenant.headers, json={"name": "people"})
    headers = _once(tenant.headers)
    for _ in range(2):
        answer = client.post("/v1/memory/collections", headers=headers, json={"name": "people"})
        assert answer.status_code == 409
        assert not _is_replayed(answer)


def test_who_lost_the_right_learns_no_more_than_what_it_was_told(
    client: TestClient, services: Services, tenant: Tenant
) -> None:
    agent = services.accounts.create_key(tenant.caller, KeyCreate())
    headers = _once({"Authorization": f"Bearer {agent.api_key}"})
    first = client.post(PEOPLE, headers=headers, json={"text": "Ada"})
    services.grants.put(tenant.caller, "people", GrantWanted(agent_key_id=tenant.caller.key_id))
    services.accounts.revoke_key(tenant.caller, agent.id)

    assert first.status_code == 201
    assert client.post(PEOPLE, headers=headers, json={"text": "Ada"}).status_code == 401


def test_a_lost_answer_is_409_and_nothing_is_done_twice(
    client: TestClient, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = _once(tenant.headers)

    def down(*_: object) -> None:
        raise Unavailable("the database does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(Idempotency, "keep", down)
        assert client.post(PEOPLE, headers=headers, json={"text": "Ada"}).status_code == 201
    monkeypatch.setattr(idempotency, "_PATIENCE_SECONDS", 0.0)

    again = client.post(PEOPLE, headers=headers, json={"text": "Ada"})

    assert again.status_code == 409
    assert "carried out already" in again.json()["detail"]
    assert _count(client, tenant) == 1


def test_the_lost_answer_of_a_drop_is_made_again_from_its_batch(
    client: TestClient, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = _once(tenant.headers)
    sent: dict[str, Any] = {"files": {"files": ("a.txt", b"Ada")}, "data": {"async_ingest": "true"}}
    path = "/v1/memory/collections/people/drop"
    with monkeypatch.context() as patched:
        patched.setattr(Idempotency, "keep", lambda *_: None)
        first = client.post(path, headers=headers, **sent)
    for endpoint in idempotency._patience:
        monkeypatch.setitem(idempotency._patience, endpoint, 0.0)

    again = client.post(path, headers=headers, **sent)

    assert (again.status_code, again.json()) == (202, first.json())
    assert _is_replayed(again)


# At once


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (PEOPLE, {"text": "Ada"}),
        ("/v1/memory/collections", {"name": "people"}),
        ("/v1/memory/collections/people/memories/bulk", [{"text": "Ada"}]),
    ],
)
def test_repeats_at_once_all_get_the_first_ones_answer(
    client: TestClient, tenant: Tenant, path: str, body: Any
) -> None:
    headers = _once(tenant.headers)
    together = threading.Barrier(6)

    def send(_: int) -> Response:
        together.wait(30)
        return client.post(path, headers=headers, json=body)

    with ThreadPoolExecutor(6) as callers:
        answers = list(callers.map(send, range(6)))

    assert [answer.status_code for answer in answers] == [201] * 6
    assert len({answer.content for answer in answers}) == 1
    assert sorted(map(_is_replayed, answers)) == [False] + [True] * 5
    assert _count(client, tenant, "/v1/memory/collections") == 1


def test_repeats_at_once_make_one_key(client: TestClient, tenant: Tenant) -> None:
    headers = _once(tenant.headers)

    with ThreadPoolExecutor(4) as callers:
        answers = list(callers.map(lambda _: client.post("/v1/memory/keys", headers=headers, json={}), range(4)))

    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    assert len(client.get("/v1/memory/keys", headers=tenant.headers).json()) == 3


# What is kept


def test_a_day_later_the_key_is_free_again(
    client: TestClient, tenant: Tenant, as_owner: psycopg.Connection[Any], services: Services
) -> None:
    headers = _once(tenant.headers)
    first = client.post(PEOPLE, headers=headers, json={"text": "Ada"})
    aged = "update idempotent_requests set created_at = created_at - interval '{}' where tenant_id = %s"
    as_owner.execute(aged.format("23 hours 59 minutes"), (tenant.id,))
    assert _is_replayed(client.post(PEOPLE, headers=headers, json={"text": "Ada"}))

    as_owner.execute(aged.format("1 minute"), (tenant.id,))
    second = client.post(PEOPLE, headers=headers, json={"text": "Ada"})

    assert second.status_code == 201
    assert second.json()["id"] != first.json()["id"]
    assert _is_replayed(client.post(PEOPLE, headers=headers, json={"text": "Ada"}))


def test_what_is_too_old_is_removed(
    client: TestClient, tenant: Tenant, as_owner: psycopg.Connection[Any], services: Services
) -> None:
    for name in ("old", "new"):
        client.post(PEOPLE, headers=_once(tenant.headers, name), json={"text": "Ada"})
        if name == "old":
            as_owner.execute(
                "update idempotent_requests set created_at = now() - interval '25 hours' where tenant_id = %s",
                (tenant.id,),
            )
    services.idempotency._clear_at = 0.0

    client.post(PEOPLE, headers=_once(tenant.headers, "newest"), json={"text": "Ada"})

    left = as_owner.execute("select count(*) from idempotent_requests where tenant_id = %s", (tenant.id,)).fetchone()
    assert left == (2,)


def test_the_database_alone_reads_neither_key_nor_answer(
    client: TestClient, tenant: Tenant, as_owner: psycopg.Connection[Any]
) -> None:
    client.post(PEOPLE, headers=_once(tenant.headers, "my-own-token"), json={"text": "Kumquat " * 50})

    row = as_owner.execute("select * from idempotent_requests where tenant_id = %s", (tenant.id,)).fetchone()

    assert row is not None
    written = b"".join(value if isinstance(value, bytes) else str(value).encode() for value in row)
    assert b"my-own-token" not in written
    assert b"umquat" not in written


def test_an_answer_with_a_secret_is_not_kept_at_all(
    client: TestClient, tenant: Tenant, as_owner: psycopg.Connection[Any]
) -> None:
    client.post("/v1/memory/keys", headers=_once(tenant.headers), json={})

    row = as_owner.execute("select answer from idempotent_requests where tenant_id = %s", (tenant.id,)).fetchone()

    assert row == (None,)


def _audited(as_owner: psycopg.Connection[Any], tenant: Tenant) -> int:
    row = as_owner.execute("select count(*) from audit where tenant_id = %s", (tenant.id,)).fetchone()
    assert row is not None
    return int(row[0])


def test_who_may_no_longer_write_gets_no_answer_again(client: TestClient, services: Services, tenant: Tenant) -> None:
    agent = services.accounts.create_key(tenant.caller, KeyCreate(label="agent"))
    may_write = GrantWanted(agent_key_id=agent.id, can_write=True)
    services.grants.put(tenant.caller, "people", may_write)
    headers = _once({"Authorization": f"Bearer {agent.api_key}"})
    first = client.post(PEOPLE, headers=headers, json={"text": "Ada likes tea"})

    services.grants.put(tenant.caller, "people", may_write.model_copy(update={"can_write": False}))
    refused = client.post(PEOPLE, headers=headers, json={"text": "Ada likes tea"})
    services.grants.put(tenant.caller, "people", may_write)
    again = client.post(PEOPLE, headers=headers, json={"text": "Ada likes tea"})

    assert (refused.status_code, "Ada" in refused.text) == (403, False)
    assert (again.json(), _is_replayed(again)) == (first.json(), True)
