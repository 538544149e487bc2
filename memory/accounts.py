"""Tenants and their keys: who may ask, and as whom."""

import hashlib
import re
import secrets
from uuid import uuid4

from memory.errors import Conflict, Invalid, Unauthorized
from memory.schemas import Caller, NewTenant
from memory.store import accounts
from memory.store.database import Database

_KEY = re.compile(r"mv_[A-Za-z0-9_-]{16,256}")
_SHOWN_CHARACTERS = 8
_TIERS = frozenset({"free", "pro", "enterprise", "self_hosted"})
_EMAIL = re.compile(r"[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+")


class Accounts:
    """Keys are `mv_` and 43 URL-safe characters; only their SHA-256 is stored."""

    def __init__(self, database: Database, admin_emails: frozenset[str] = frozenset()) -> None:
        self._database = database
        self._admin_emails = admin_emails

    def authenticate(self, token: str) -> Caller:
        """Who holds this key. Raises Unauthorized."""
        if _KEY.fullmatch(token):
            with self._database.across() as session:
                caller = accounts.find_caller(session, _hashed(token))
            if caller is not None:
                return caller
        raise Unauthorized("missing or invalid API key")

    def create_tenant(
        self,
        *,
        email: str,
        name: str | None = None,
        admin: bool = False,
        tier: str = "self_hosted",
        api_key: str | None = None,
    ) -> NewTenant:
        """A tenant with its main key, made here unless given; an operator's if `admin` or by its address.

        Raises Conflict for a known address or key, Invalid.
        """
        email = email.strip().lower()
        name = (name or "").strip() or email
        if not _EMAIL.fullmatch(email):
            raise Invalid(f"not an e-mail address: {email!r}")
        if not name.isprintable():
            raise Invalid("a name has no control characters")
        if tier not in _TIERS:
            raise Invalid(f"unknown tier {tier!r}: one of {', '.join(sorted(_TIERS))}")
        if api_key is not None and not _KEY.fullmatch(api_key):
            raise Invalid("a key is `mv_` followed by 16 or more letters, digits, `-` or `_`")
        key = api_key or f"mv_{secrets.token_urlsafe(32)}"
        tenant_id = uuid4()
        with self._database.transaction(tenant_id) as session:
            if not accounts.insert_tenant(
                session,
                tenant_id=tenant_id,
                name=name,
                email=email,
                tier=tier,
                is_admin=admin or email in self._admin_emails,
            ):
                raise Conflict(f"a tenant with the address {email} exists")
            if not accounts.insert_key(
                session,
                tenant_id=tenant_id,
                key_id=uuid4(),
                key_hash=_hashed(key),
                prefix=key[:_SHOWN_CHARACTERS],
                label="main",
                is_main=True,
            ):
                raise Conflict("this key is in use already")
        return NewTenant(tenant_id=tenant_id, email=email, api_key=key)


def _hashed(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
