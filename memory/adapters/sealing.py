"""Sealing by Fernet: what is kept can be read only by who brings the secret again."""

import base64
import hashlib

from cryptography.fernet import Fernet, InvalidToken

from memory.errors import Invalid
from memory.ports import Sealer


class FernetSealer(Sealer):
    """Fernet, with a key made of the secret."""

    def seal(self, secret: bytes, content: bytes) -> bytes:
        return _fernet(secret).encrypt(content)

    def open(self, secret: bytes, sealed: bytes) -> bytes:
        try:
            return _fernet(secret).decrypt(sealed)
        except InvalidToken:
            raise Invalid("sealed with another secret, or damaged") from None


def _fernet(secret: bytes) -> Fernet:
    return Fernet(base64.urlsafe_b64encode(hashlib.sha256(b"sealed\0" + secret).digest()))
