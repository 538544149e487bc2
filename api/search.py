"""Routes of the heading "Search"."""

from fastapi import Response

from api.auth import Reader
from api.deps import Collection, Services
from api.routing import answer
from api.routing import router as guarded_router
from memory.schemas import SearchRequest, SearchResponse

router = guarded_router("search")


@router.post("/v1/memory/collections/{collection}/search", response_model=SearchResponse)
def search_collection(caller: Reader, services: Services, collection: Collection, body: SearchRequest) -> Response:
    """Searches one collection; an unknown one has no results."""
    return answer(services.search.search(caller, collection, body))


@router.post("/v1/memory/search", response_model=SearchResponse)
def search(caller: Reader, services: Services, body: SearchRequest) -> Response:
    """Searches all your collections."""
    return answer(services.search.search(caller, None, body))
