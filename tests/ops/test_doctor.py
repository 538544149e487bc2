"""What the doctor finds in the parts of an installation."""

import os
from io import BytesIO
from uuid import uuid4

from memory.services import Services
from memory.settings import Settings
from ops import doctor
from tests.conftest import Tenant


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
