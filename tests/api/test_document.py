"""The product against its own OpenAPI document: whatever is sent, the answer is one that the document promises."""

import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import hypothesis
import pytest
import schemathesis
import uvicorn
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase
from schemathesis.config import SchemathesisConfig
from structlog.testing import capture_logs

from api import batches, drop, events
from api.app import create_app
from memory.agents import KeyCreate
from memory.schemas import Caller
from memory.services import Services
from memory.settings import Settings
from tests.api.conftest import NoTemporal
from tests.conftest import Headers

Case = schemathesis.Case[Any]

_SEARCHES = ["/v1/memory/search", "/v1/memory/collections/{collection}/search"]
_NOT_ON_THE_WAY = [
    "/v1/memory/admin/rotate-key",
    "/v1/memory/collections/{collection}/forget",
    "/v1/memory/collections/{collection}/memories/{memory_id}/move",
]
_COLLECTION = "/v1/memory/collections/{collection}"
_FORMS = [
    f"{_COLLECTION}/drop",
    f"{_COLLECTION}/memories/upload",
    f"{_COLLECTION}/memories/folder",
    f"{_COLLECTION}/memories/{{memory_id}}/images",
]
_FORM_CHECKS = {"negative_data_rejection": {"enabled": False}}
_AS_AN_ID = {"unsupported_method": {"enabled": False}}
_A_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_FAR = "2999-01-01T00:00:00Z"


def _config(*, coverage: bool) -> SchemathesisConfig:
    """Every check that schemathesis has is on, those of later versions too: status, content type, headers and schema of
    an answer, what must be refused and what must not, methods, and keys that are missing or wrong. What is off or wider
    stands below with its reason. Two checks need to know what was made before: they judge the walk along the links."""
    return SchemathesisConfig.from_dict(
        {
            # NUL in metadata is refused; no schema can say so of texts at any depth.
            "generation": {"allow-x00": False, "with-security-parameters": False},
            "phases": {
                "examples": {"enabled": False},
                "coverage": {"enabled": coverage},
                "stateful": {"inference": {"algorithms": []}},
            },
            "checks": {
                # `If-Match` that names another version is as well-formed as the name of nothing.
                "positive_data_acceptance": {"expected-statuses": ["2xx", "401", "403", "404", "409", "412", "503"]},
                "negative_data_rejection": {"expected-statuses": ["400", "401", "403", "404", "405", "409", "422"]},
            },
            "operations": [
                # Covering each form of a filter takes tens of thousands of requests; random ones go there too.
                *[{"include-path": path, "phases": {"coverage": {"enabled": False}}} for path in _SEARCHES],
                # In a form everything is a word, and an empty one counts as not sent.
                *[{"include-path": path, "checks": _FORM_CHECKS} for path in _FORMS],
                # Their paths are those of memories with such ids, for methods that these have.
                *[{"include-path": path, "checks": _FORM_CHECKS | _AS_AN_ID} for path in _FORMS[1:3]],
            ],
        }
    )


def _document() -> dict[str, Any]:
    return create_app(Settings(_env_file=None)).openapi()


SCHEMA = schemathesis.openapi.from_dict(_document(), config=_config(coverage=True))
LONG = schemathesis.openapi.from_dict(_document(), config=_config(coverage=False))
# Whose memory was moved or forgotten on the way would look for it in vain, and whose key was changed for anything. Who
# writes to a collection that was deleted makes it anew: no check expects that.
LINKED = (
    schemathesis.openapi.from_dict(_document(), config=_config(coverage=False))
    .exclude(path=_NOT_ON_THE_WAY)
    .exclude(path="/v1/memory/collections/{name}", method="DELETE")
)


def _sensible(case: Case) -> Case:
    """What no schema can say: a time that is past is refused for a key, and a memory of then is not there; the text of
    a form's field, or of one in a query, is JSON; some dates are in no calendar; a bulk names nothing twice."""
    named: set[object] = set()
    if "metadata" in (case.query or {}) and _as_documented(case):
        case.query["metadata"] = "{}"
    for one in case.body if isinstance(case.body, list) else [case.body]:
        if isinstance(one, dict) and re.match(_A_DATE, str(one.get("expires_at"))):
            one["expires_at"] = _FAR
        if case.path in _FORMS and _as_documented(case) and isinstance(one, dict):
            one["metadata"] = "{}"
        if isinstance(one, dict) and "filter" in one:
            one["filter"] = _with_real_dates(one["filter"])
        if isinstance(one, dict) and isinstance(name := one.get("external_id"), str):
            if name.strip() in named:
                del one["external_id"]
            named.add(name.strip())
    return case


def _with_real_dates(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_real_dates(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_with_real_dates(inner) for inner in value]
    return re.sub(rf"^{_A_DATE}", "2026-01-31", value) if isinstance(value, str) else value


def _as_documented(case: Case) -> bool:
    return case.meta is not None and case.meta.generation.mode.is_positive


@dataclass(frozen=True)
class Served:
    """The app behind a real server, and keys for it."""

    url: str
    services: Services
    caller: Caller

    def key(self) -> Headers:
        made = self.services.accounts.create_key(self.caller, KeyCreate())
        return {"Authorization": f"Bearer {made.api_key}"}


@pytest.fixture(scope="module")
def served(app: FastAPI, services: Services) -> Iterator[Served]:
    made = services.accounts.create_tenant(email="document@example.org")
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    app.state.workflows = NoTemporal()
    port = server.servers[0].sockets[0].getsockname()[1]
    # The server logs a request after its answer, when nobody may be listening to what a test prints.
    with pytest.MonkeyPatch.context() as patch, capture_logs():
        # Nothing reads the files here, and nobody wants to wait for that.
        for routes in (drop, batches):
            patch.setattr(routes, "wait_until", lambda ended, _patience: ended())
        patch.setattr(events, "LASTS_SECONDS", 0.0)
        yield Served(f"http://127.0.0.1:{port}", services, services.accounts.authenticate(made.api_key))
    server.should_exit = True
    thread.join()


def _settings(examples: int) -> hypothesis.settings:
    return hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )


def _call(served: Served, case: Case) -> None:
    _sensible(case).call_and_validate(base_url=served.url, headers=served.key())


@SCHEMA.parametrize()
@_settings(5)
def test_every_answer_is_as_the_document_says(served: Served, case: Case) -> None:
    _call(served, case)


@pytest.mark.long
@pytest.mark.timeout(1800)
@LONG.parametrize()
@_settings(400)
def test_thousands_of_answers_are_as_the_document_says(served: Served, case: Case) -> None:
    _call(served, case)


def _walk(served: Served, examples: int) -> None:
    class Walk(LINKED.as_state_machine()):  # type: ignore[misc]
        """Along the links of the document, from what was made to all that can be done with it."""

        def setup(self) -> None:
            # A tenant of its own: the same steps must lead to the same place however often they are taken.
            made = served.services.accounts.create_tenant(email=f"{uuid4()}@example.org")
            self.headers = {"Authorization": f"Bearer {made.api_key}"}

        def before_call(self, case: Case) -> None:
            _sensible(case)

        def get_call_kwargs(self, case: Case) -> dict[str, Any]:
            return {"headers": self.headers, "base_url": served.url}

    Walk.run(settings=_settings(examples))


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_what_was_made_is_there_for_what_the_document_leads_to(served: Served) -> None:
    _walk(served, 200)
