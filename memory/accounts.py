"""Tenants and their keys: who may ask, and as whom."""

import hashlib
import hmac
import re
import secrets
from dataclasses import replace
from uuid import UUID, uuid4

from memory import quotas
from memory.account_schemas import Account, AuditEntry, AuditPage, Usage
from memory.agents import Agent, Key, KeyCreate, NewKey, NewTenant
from memory.errors import BadRequest, Conflict, Invalid, NotFound, Unauthorized
from memory.key_use import KeyUse
from memory.schemas import Caller
from memory.store import accounts, answers, changes, keys, requests, usage
from memory.store.answers import State
from memory.store.database import Database

_KEY = re.compile(r"mv_[A-Za-z0-9_-]{16,256}")
_SHOWN_CHARACTERS = 8
_EMAIL = re.compile(r"[^@\s\x00-\x1f\x7f]+@[^@\s\x00-\x1f\x7f]+")


class Accounts:
    """Keys are `mv_` and 43 URL-safe characters; only their SHA-256 is stored.

    `salt` makes hashes of addresses that nobody without it can find the address to. Tenants with one of
    `admin_emails` are operators. `requests_per_minute` is what each key is held to; 0 is no limit.
    """

    def __init__(
        self,
        database: Database,
        key_use: KeyUse,
        salt: bytes,
        admin_emails: frozenset[str] = frozenset(),
        requests_per_minute: int = 0,
    ) -> None:
        self._database = database
        self._key_use = key_use
        self._salt = salt
        self._admin_emails = admin_emails
        self._requests_per_minute = requests_per_minute

    def authenticate(self, token: str, *, address: str | None = None) -> Caller:
        """Who holds this key, asking from this address. Raises Unauthorized."""
        caller = accounts.find_caller(self._database, _hashed(token)) if _KEY.fullmatch(token) else None
        return self._welcomed(caller, address)

    def enter(self, token: str, collection: str | None, *, address: str | None = None) -> tuple[Caller, list[State]]:
        """As `authenticate`, together with what answers about this collection, or about all of them, depend on."""
        found = answers.entered(self._database, _hashed(token), collection) if _KEY.fullmatch(token) else None
        caller, states = found or (None, [])
        return self._welcomed(caller, address), states

    def _welcomed(self, caller: Caller | None, address: str | None) -> Caller:
        if caller is None:
            raise Unauthorized("missing or invalid API key")
        self._key_use.used(caller)
        return replace(caller, ip_hash=self._hashed_address(address))

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
        if tier not in quotas.TIERS:
            raise Invalid(f"unknown tier {tier!r}: one of {', '.join(sorted(quotas.TIERS))}")
        if api_key is not None and not _KEY.fullmatch(api_key):
            raise Invalid("a key is `mv_` followed by 16 or more letters, digits, `-` or `_`")
        key = api_key or _made()
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
            if not keys.insert(
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

    def me(self, caller: Caller) -> Account:
        """The caller's account, with the limits that hold for it."""
        with self._database.transaction(caller.tenant_id) as session:
            found = accounts.find_tenant(session, caller.tenant_id)
        limits = quotas.of_tier(found["tier"]).model_copy(
            update={"requests_per_minute": self._requests_per_minute or None}
        )
        return Account(**found, limits=limits)

    def usage(self, caller: Caller) -> Usage:
        """What the account holds."""
        with self._database.transaction(caller.tenant_id) as session:
            return usage.of_tenant(session)

    def audit(self, caller: Caller, wanted: AuditPage) -> tuple[list[AuditEntry], int]:
        """What was changed in the account, newest first, and how much that is."""
        with self._database.transaction(caller.tenant_id) as session:
            return changes.entries(session, days=wanted.days, limit=wanted.limit)

    # Keys

    def keys(self, caller: Caller, *, limit: int | None, offset: int) -> tuple[list[Key], int]:
        """A page of the tenant's keys, newest first, revoked ones included, and how many there are."""
        with self._database.transaction(caller.tenant_id) as session:
            return keys.listed(session, limit=limit, offset=offset)

    def agents(self, caller: Caller, *, limit: int | None, offset: int) -> tuple[list[Agent], int]:
        """The identities behind the keys that work, newest first, and how many there are."""
        with self._database.transaction(caller.tenant_id) as session:
            return keys.agents(session, limit=limit, offset=offset)

    def create_key(self, caller: Caller, wanted: KeyCreate) -> NewKey:
        """A key that is not the main one; here alone it is shown."""
        api_key, key_id = _made(), uuid4()
        with self._database.transaction(caller.tenant_id) as session:
            requests.mark(session, caller)
            if not keys.insert(
                session,
                tenant_id=caller.tenant_id,
                key_id=key_id,
                key_hash=_hashed(api_key),
                prefix=api_key[:_SHOWN_CHARACTERS],
                label=wanted.label,
                read_only=wanted.read_only,
                expires_at=wanted.expires_at,
            ):
                raise Conflict("this key is in use already")
            made = _known(keys.find(session, key_id))
            changes.record(session, caller, "key.create", f"key {key_id}")
        return NewKey(**made.model_dump(), api_key=api_key)

    def rotate_key(self, caller: Caller, token: str) -> NewKey:
        """Gives the caller's key a new secret: id, label, grants and provenance stay, the old secret ends at once.

        Raises Unauthorized when another rotation was quicker.
        """
        api_key = _made()
        with self._database.transaction(caller.tenant_id) as session:
            rotated = keys.replace_secret(
                session, old_hash=_hashed(token), new_hash=_hashed(api_key), prefix=api_key[:_SHOWN_CHARACTERS]
            )
            if rotated is None:
                raise Unauthorized("missing or invalid API key")
            changes.record(session, caller, "key.rotate", f"key {rotated.id}")
        return NewKey(**rotated.model_dump(), api_key=api_key)

    def revoke_key(self, caller: Caller, key_id: UUID) -> None:
        """Ends a key for good; its grants and what it wrote stay.

        Raises NotFound, also for one that is revoked already; BadRequest for the last that can write.
        """
        with self._database.transaction(caller.tenant_id) as session:
            # One at a time: two keys that revoke one another at once would leave none.
            accounts.hold(session, caller.tenant_id)
            key = keys.find(session, key_id)
            if key is None or key.revoked:
                raise NotFound("no such key, or it is revoked already")
            if keys.is_last_writer(session, key_id):
                raise BadRequest("this is the last active key that can write; create another one first")
            keys.revoke(session, key_id)
            changes.record(session, caller, "key.revoke", f"key {key_id}")

    def _hashed_address(self, address: str | None) -> str | None:
        if address is None:
            return None
        return hmac.new(self._salt, address.encode(), hashlib.sha256).hexdigest()[:32]


def _hashed(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _made() -> str:
    return f"mv_{secrets.token_urlsafe(32)}"


def _known(key: Key | None) -> Key:
    if key is None:
        raise NotFound("no such key")
    return key
