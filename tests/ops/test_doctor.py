"""What the doctor finds in the parts of an installation."""

import os
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import SecretStr

from memory.services import Services
from memory.settings import Settings
from ops import bootstrap, doctor
from tests.conftest import Tenant
from tests.s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, s3_server


def test_objects_that_belong_to_nothing_are_counted_and_left(
    settings: Settings, services: Services, tenant: Tenant
) -> None:
    keys = [f"{tenant.id}/files/{uuid4()}" for _ in range(2)]
    for key in keys:
        services.objects.put(key, BytesIO(b"1234"), max_bytes=4)
        os.utime(settings.rememberos_data / "objects" / key, (0, 0))

    (found,) = doctor.examine(settings, only="orphans")

    assert found.remedy is None
    assert found.text.startswith("2 objects, 8 bytes, belong to nothing")
    assert [services.objects.get(key) for key in keys] == [b"1234"] * 2
    services.objects.delete(keys)
    (found,) = doctor.examine(settings, only="orphans")
    assert found.text == "every stored object belongs to something"


def test_a_bucket_that_is_no_use_is_named(settings: Settings, tmp_path: Path) -> None:
    def seen(**changed: Any) -> tuple[str, str | None, str | None]:
        given = {"s3_bucket": BUCKET, "s3_access_key": SecretStr(ACCESS_KEY), "s3_secret_key": SecretStr(SECRET_KEY)}
        of = settings.model_copy(update={**given, "s3_endpoint_url": url, **changed})
        (found,) = doctor.examine(of, only="files")
        return found.text, found.remedy, bootstrap.trouble_with_files(of)

    with s3_server(tmp_path) as server:
        url = server.endpoint_url
        assert seen() == (f"stored and read back in bucket {BUCKET}", None, None)
        wrong = {"s3_bucket": "no-such-bucket", "s3_secret_key": SecretStr("sesame"), "s3_region": "moon-1"}
        for name, value in wrong.items():
            text, remedy, at_the_start = seen(**{name: value})
            assert name.upper() in text
            assert remedy is not None
            assert at_the_start == text
    text, remedy, at_the_start = seen()
    assert (text, at_the_start) == ("the object store does not answer",) * 2
    assert "S3_ENDPOINT_URL" in str(remedy)
