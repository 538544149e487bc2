"""Two processes' worth of cached search on one database."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from memory.cache import CachedSearch
from memory.embedding import Embedding
from memory.grants import Grants
from memory.ports import Cache
from memory.schemas import SearchRequest
from memory.search import Search
from memory.services import Services
from memory.settings import Settings
from memory.store.database import Database

Processes = tuple[CachedSearch, CachedSearch]


@contextmanager
def two_processes(house: Services, settings: Settings, make_cache: Callable[[], Cache]) -> Iterator[Processes]:
    """Each has connections of its own and its own side of the cache; the search behind them is one."""
    assert settings.database_url is not None
    url = settings.database_url.get_secret_value()
    databases = [Database(url, pool_size=2) for _ in range(2)]
    caches = [make_cache() for _ in range(2)]
    try:
        first, second = (
            CachedSearch(
                plain_search(house), database=database, grants=Grants(database), objects=house.objects, cache=cache
            )
            for database, cache in zip(databases, caches, strict=True)
        )
        yield first, second
    finally:
        for cache in caches:
            cache.close()
        for database in databases:
            database.close()


def plain_search(house: Services) -> Search:
    """Search as it is behind every cache."""
    embedding = Embedding(house.database, house.embedder)
    return Search(house.database, embedding, house.objects, house.statistics)


def ask(query: str = "tea", **more: object) -> SearchRequest:
    """A question that nothing is too far from."""
    return SearchRequest.model_validate({"query": query, "min_score": 0.0, "limit": 50, **more})
