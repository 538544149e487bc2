"""Sealed content opens for its secret alone."""

import pytest

from memory.adapters.sealing import FernetSealer
from memory.errors import Invalid


def test_it_opens_for_its_secret() -> None:
    sealed = FernetSealer().seal(b"secret", b"content")

    assert b"content" not in sealed
    assert FernetSealer().open(b"secret", sealed) == b"content"


@pytest.mark.parametrize("secret", [b"Secret", b""])
def test_it_stays_closed_for_another(secret: bytes) -> None:
    with pytest.raises(Invalid):
        FernetSealer().open(secret, FernetSealer().seal(b"secret", b"content"))


def test_what_was_changed_stays_closed() -> None:
    sealed = bytearray(FernetSealer().seal(b"secret", b"content"))
    sealed[-5] ^= 1

    with pytest.raises(Invalid):
        FernetSealer().open(b"secret", bytes(sealed))
