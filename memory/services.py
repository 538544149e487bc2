"""The only place where rules meet adapters: the house put together from its settings."""

import hashlib
import os
import secrets
from dataclasses import dataclass

from pydantic import SecretStr

from memory.accounts import Accounts
from memory.adapters.embedder import LocalEmbedder
from memory.adapters.local_cache import LocalCache
from memory.adapters.objects import LocalObjects
from memory.adapters.s3_objects import S3Objects
from memory.adapters.sealing import FernetSealer
from memory.attachments import Attachments
from memory.batches import Batches
from memory.cache import CachedSearch
from memory.cleaning import Cleaning
from memory.collections import Collections
from memory.curation import Curation
from memory.curation_runs import CurationRuns
from memory.drops import Drops
from memory.embedding import Embedding
from memory.errors import Misconfigured
from memory.expiry import Expiry
from memory.fates import Fates
from memory.grants import Grants
from memory.idempotency import Idempotency
from memory.indexes import Indexes
from memory.ingesting import Ingesting
from memory.intake import Intake
from memory.key_use import KeyUse
from memory.memories import Memories
from memory.overviews import Overviews
from memory.policies import Policies
from memory.ports import Cache, Embedder, FileReader, ObjectStore, Senses
from memory.search import Search
from memory.settings import Settings
from memory.statistics import Statistics
from memory.store import schema
from memory.store.database import Database
from memory.uploads import Uploads


@dataclass(frozen=True)
class Services:
    """Everything a front door or a worker needs, built once per process."""

    settings: Settings
    database: Database
    accounts: Accounts
    key_use: KeyUse
    idempotency: Idempotency
    grants: Grants
    collections: Collections
    memories: Memories
    attachments: Attachments
    fates: Fates
    expiry: Expiry
    indexes: Indexes
    search: CachedSearch
    cache: Cache
    intake: Intake
    drops: Drops
    uploads: Uploads
    batches: Batches
    cleaning: Cleaning
    ingesting: Ingesting
    curation: Curation
    curation_runs: CurationRuns
    policies: Policies
    overviews: Overviews
    objects: ObjectStore
    embedder: Embedder
    statistics: Statistics

    def close(self) -> None:
        self.key_use.close()
        self.statistics.close()
        self.cache.close()
        self.database.close()


def build(settings: Settings, *, reader: FileReader | None = None, senses: Senses | None = None) -> Services:
    """Services for one process; nothing is connected yet. With a `reader` it is a worker's. Raises Misconfigured."""
    database = Database(_required(settings.database_url, "DATABASE_URL"))
    # One thread more than cores keeps a query's latency low while bulk work runs; a worker answers nobody.
    embedder = _embedder(settings, threads=(os.cpu_count() or 1) + (reader is None))
    objects = _objects(settings)
    embedding = Embedding(database, embedder)
    key_use = KeyUse(database)
    grants = Grants(database)
    intake = Intake(database, objects)
    drops = Drops(database, grants, intake)
    statistics = Statistics(database)
    cache = _cache(settings)
    search = Search(database, embedding, objects, statistics)
    return Services(
        settings=settings,
        database=database,
        accounts=_accounts(settings, database, key_use),
        key_use=key_use,
        idempotency=Idempotency(database, FernetSealer()),
        grants=grants,
        collections=Collections(database, grants, objects),
        memories=Memories(database, grants, embedding, objects, statistics),
        attachments=Attachments(database, grants, embedding, objects, statistics),
        fates=Fates(database, grants, embedding, objects, statistics),
        expiry=Expiry(database, objects, statistics),
        # The API never logs in as the owner, whatever its settings hold.
        indexes=Indexes(None if reader is None else settings.database_owner_url),
        search=CachedSearch(search, database=database, grants=grants, objects=objects, cache=cache),
        cache=cache,
        intake=intake,
        drops=drops,
        uploads=Uploads(database, grants, objects, intake, drops),
        batches=Batches(database, grants),
        cleaning=Cleaning(database, objects),
        ingesting=Ingesting(database, embedding, objects, statistics, reader, senses),
        curation=Curation(database, grants, embedding, objects),
        curation_runs=CurationRuns(database, embedding, objects, statistics),
        policies=Policies(database, grants, embedding),
        overviews=Overviews(database, grants, objects),
        objects=objects,
        embedder=embedder,
        statistics=statistics,
    )


def migrate(settings: Settings) -> None:
    """Upgrades the schema as owner and makes the app's role. Raises Misconfigured, Unavailable."""
    schema.migrate(
        _required(settings.database_owner_url, "DATABASE_OWNER_URL"),
        _required(settings.database_url, "DATABASE_URL"),
        _embedder(settings, threads=1).model,
        settings.admin_emails,
    )


def _required(url: SecretStr | None, name: str) -> str:
    if url is None:
        raise Misconfigured(f"{name} is not set: `rememberos up` brings its own Postgres, otherwise name one")
    return url.get_secret_value()


def _embedder(settings: Settings, *, threads: int) -> Embedder:
    if settings.embedding_provider == "local":
        return LocalEmbedder(
            cache=settings.rememberos_data / "models",
            compute_type=settings.embedding_compute_type,
            threads=threads,
        )
    # Here, because the client library takes a second to load, which a start without it need not pay.
    from memory.adapters.embedding_endpoint import OpenAIEmbedder

    return OpenAIEmbedder(
        base_url=settings.embedding_base_url,
        model=settings.embedding_model,
        api_key=settings.embedding_api_key,
    )


def _accounts(settings: Settings, database: Database, key_use: KeyUse) -> Accounts:
    return Accounts(
        database,
        key_use,
        _secret_for(settings, b"addresses in the audit log"),
        settings.admin_emails,
        settings.rate_limit_per_minute,
    )


def _cache(settings: Settings) -> Cache:
    if settings.redis_url is None:
        return LocalCache()
    # Here, because a start without Redis need not load its library.
    from memory.adapters.redis_cache import RedisCache

    return RedisCache(settings.redis_url)


def _objects(settings: Settings) -> ObjectStore:
    if settings.s3_bucket is not None:
        return S3Objects(
            bucket=settings.s3_bucket,
            endpoint_url=settings.s3_endpoint_url,
            region=settings.s3_region,
            addressing=settings.s3_addressing,
            access_key=settings.s3_access_key,
            secret_key=settings.s3_secret_key,
        )
    return LocalObjects(
        folder=settings.rememberos_data / "objects",
        base_url=settings.api_url,
        signing_key=_secret_for(settings, b"links to stored files"),
    )


def _secret_for(settings: Settings, purpose: bytes) -> bytes:
    if settings.encryption_key is None:
        # It then holds until the process ends, which is all that one process without a key can promise.
        return secrets.token_bytes(32)
    newest = settings.encryption_key.get_secret_value().split(",")[0].strip()
    return hashlib.sha256(purpose + b"\0" + newest.encode()).digest()
