"""The only place where rules meet adapters: the house put together from its settings."""

import hashlib
import os
import secrets
from dataclasses import dataclass

from pydantic import SecretStr

from memory.accounts import Accounts
from memory.adapters.embedder import LocalEmbedder
from memory.adapters.objects import LocalObjects, S3Objects
from memory.collections import Collections
from memory.drops import Drops
from memory.embedding import Embedding
from memory.errors import Misconfigured
from memory.grants import Grants
from memory.memories import Memories
from memory.ports import Embedder, FileReader, ObjectStore
from memory.search import Search
from memory.settings import Settings
from memory.statistics import Statistics
from memory.store import schema
from memory.store.database import Database


@dataclass(frozen=True)
class Services:
    """Everything a front door or a worker needs, built once per process."""

    settings: Settings
    database: Database
    accounts: Accounts
    grants: Grants
    collections: Collections
    memories: Memories
    search: Search
    drops: Drops
    objects: ObjectStore
    embedder: Embedder
    statistics: Statistics

    def close(self) -> None:
        self.statistics.close()
        self.database.close()


def build(settings: Settings, *, reader: FileReader | None = None) -> Services:
    """Services for one process; nothing is connected yet. With a `reader` it is a worker's. Raises Misconfigured."""
    database = Database(_required(settings.database_url, "DATABASE_URL"))
    # One thread more than cores keeps a query's latency low while bulk work runs; a worker answers nobody.
    embedder = _embedder(settings, threads=(os.cpu_count() or 1) + (reader is None))
    objects = _objects(settings)
    embedding = Embedding(database, embedder)
    grants = Grants(database)
    statistics = Statistics(database)
    return Services(
        settings=settings,
        database=database,
        accounts=Accounts(database),
        grants=grants,
        collections=Collections(database, grants, objects),
        memories=Memories(database, grants, embedding, objects, statistics),
        search=Search(database, grants, embedding, objects, statistics),
        drops=Drops(database, grants, embedding, objects, statistics, reader),
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


def _objects(settings: Settings) -> ObjectStore:
    if settings.s3_bucket is not None:
        return S3Objects(
            bucket=settings.s3_bucket,
            endpoint_url=settings.s3_endpoint_url,
            region=settings.s3_region,
            access_key=settings.s3_access_key,
            secret_key=settings.s3_secret_key,
        )
    return LocalObjects(
        folder=settings.rememberos_data / "objects",
        base_url=settings.api_url,
        signing_key=_signing_key(settings),
    )


def _signing_key(settings: Settings) -> bytes:
    if settings.encryption_key is None:
        # Links then work until the process ends, which is all that one process without a key can promise.
        return secrets.token_bytes(32)
    newest = settings.encryption_key.get_secret_value().split(",")[0].strip()
    return hashlib.sha256(b"links to stored files\0" + newest.encode()).digest()
