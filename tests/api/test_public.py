"""What needs no key: liveness, the description of the API, its explorer, signed links."""

import io
import json
import re
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi.openapi.models import OpenAPI
from jsonschema import Draft202012Validator
from starlette.testclient import TestClient

from api.auth import PUBLIC
from memory.services import Services
from tests.api.conftest import Tenant


def test_health(client: TestClient) -> None:
    answer = client.get("/v1/memory/health")

    assert (answer.status_code, answer.json()) == (200, {"status": "healthy"})
    assert client.head("/v1/memory/health").status_code == 200


@pytest.fixture
def description(client: TestClient) -> Any:
    return client.get("/openapi.json").json()


def _operations(description: Any) -> list[tuple[str, Any]]:
    return [(path, operation) for path, item in description["paths"].items() for operation in item.values()]


def test_the_description_says_what_it_is(description: Any) -> None:
    assert description["openapi"] == "3.1.0"
    assert description["info"] == {"title": "RememberOS API", "version": "0.1.0"}
    assert description["servers"] == [{"url": "http://api.test"}]


def test_the_description_is_well_formed(description: Any) -> None:
    OpenAPI.model_validate(description)
    for schema in description["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_every_reference_of_the_description_leads_somewhere(description: Any) -> None:
    references = re.findall(r'"\$ref": "#/components/schemas/([^"]+)"', json.dumps(description))

    assert set(references) == set(description["components"]["schemas"])


def test_operation_ids_and_tags_have_the_documented_form(description: Any) -> None:
    operations = dict(_operations(description))
    ids = [operation["operationId"] for _, operation in _operations(description)]

    assert "list_collections_v1_memory_collections_get" in ids
    assert len(set(ids)) == len(ids)
    assert operations["/v1/memory/collections"]["tags"] == ["collections"]
    assert all(operation["tags"] for operation in operations.values())


def test_every_operation_that_is_not_public_wants_a_bearer_key(description: Any) -> None:
    assert description["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    for path, operation in _operations(description):
        assert operation.get("security") == (None if path in PUBLIC else [{"HTTPBearer": []}]), path


def test_the_documented_refusals_have_a_string_detail(description: Any) -> None:
    for path, operation in _operations(description):
        for status in {"401", "403", "404", "422"} & operation["responses"].keys():
            reference = operation["responses"][status]["content"]["application/json"]["schema"]["$ref"]
            schema = description["components"]["schemas"][reference.rsplit("/", 1)[1]]
            assert schema["properties"]["detail"]["type"] == "string", (path, status)


def test_the_explorer_loads_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/api-explorer.html")

    assert page.headers["Content-Type"].startswith("text/html")
    assert "//" not in re.sub(r"<!--.*?-->|^\s*//.*$", "", page.text, flags=re.MULTILINE)
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    assert '"validatorUrl": null' in page.text
    assets = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(assets) == 3
    for asset in [*assets, "/openapi.json"]:
        assert client.get(asset).status_code == 200, asset


@pytest.mark.parametrize("path", ["/api-explorer/../app.py", "/api-explorer/%2e%2e/core.py", "/api-explorer/", "/docs"])
def test_nothing_else_is_served_beside_it(client: TestClient, path: str) -> None:
    answer = client.get(path)

    assert answer.status_code == 404
    assert isinstance(answer.json()["detail"], str)


def _link(services: Services, content: bytes, *, filename: str, content_type: str, seconds: int = 60) -> str:
    key = "tenant/files/1"
    services.objects.put(key, io.BytesIO(content), max_bytes=10_000_000)
    link = urlsplit(services.objects.url(key, filename=filename, content_type=content_type, seconds=seconds))
    assert (link.scheme, link.netloc) == ("http", "api.test")
    return f"{link.path}?{link.query}"


def test_a_signed_link_downloads_the_file(client: TestClient, services: Services) -> None:
    content = bytes(range(256)) * 8_000
    link = _link(services, content, filename='Über "uns".pdf', content_type="application/pdf")

    answer = client.get(link)

    assert answer.status_code == 200
    assert answer.content == content
    assert answer.headers["Content-Type"] == "application/pdf"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Disposition"].startswith("attachment; ")
    assert "filename*=UTF-8''%C3%9Cber%20%22uns%22.pdf" in answer.headers["Content-Disposition"]


def test_a_page_that_a_tenant_stored_is_not_shown_as_ours(client: TestClient, services: Services) -> None:
    answer = client.get(_link(services, b"<script>", filename="a.html", content_type="text/html"))

    assert answer.headers["Content-Disposition"].startswith("attachment; ")
    assert "sandbox" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("part", "other"),
    [
        ("/tenant/files/1", "/tenant/files/2"),
        ("filename=a.txt", "filename=b.txt"),
        ("type=text%2Fplain", "type=text%2Fhtml"),
        ("expires=", "expires=9"),
        ("signature=", "signature=0"),
        ("signature=", "nothing="),
        ("signature=", "signature=%F0%9F%98%80"),
        ("/tenant/files/1", "/tenant/files/%2E%2E/files/1"),
        ("/tenant/files/1", "/%00"),
    ],
)
def test_a_link_that_was_changed_is_404(client: TestClient, services: Services, part: str, other: str) -> None:
    link = _link(services, b"x", filename="a.txt", content_type="text/plain")
    assert part in link
    assert client.get(link).status_code == 200

    assert client.get(link.replace(part, other, 1)).status_code == 404


def test_a_link_that_has_expired_is_404(client: TestClient, services: Services) -> None:
    link = _link(services, b"x", filename="a.txt", content_type="text/plain", seconds=0)

    assert client.get(link).status_code == 404


def test_a_file_that_is_gone_is_404(client: TestClient, services: Services) -> None:
    link = _link(services, b"x", filename="a.txt", content_type="text/plain")
    services.objects.delete(["tenant/files/1"])

    assert client.get(link).status_code == 404


def test_pages_of_other_sites_may_call(client: TestClient, tenant: Tenant) -> None:
    origin = {"Origin": "https://dashboard.example"}
    asked = {**origin, "Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "authorization"}

    preflight = client.options("/v1/memory/search", headers=asked)
    answers = [
        client.get("/v1/memory/collections", headers={**origin, **tenant.headers}),
        client.get("/v1/memory/collections", headers=origin),
    ]

    assert preflight.status_code == 200
    assert "PATCH" in preflight.headers["Access-Control-Allow-Methods"]
    assert [answer.status_code for answer in answers] == [200, 401]
    for answer in [preflight, *answers]:
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "Access-Control-Allow-Credentials" not in answer.headers
        assert answer.headers["X-Request-Id"]
    assert "X-Total-Count" in answers[0].headers["Access-Control-Expose-Headers"]
