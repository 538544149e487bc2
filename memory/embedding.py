"""Texts into vectors of the model that the database is filled with."""

from collections.abc import Sequence
from functools import cached_property

from memory.gathering import SHORT_CHARACTERS, Gathering
from memory.ports import Embedder, Vectors
from memory.store import embeddings
from memory.store.database import Database


class Embedding:
    """The embedder together with the id under which the database knows its model."""

    def __init__(self, database: Database, embedder: Embedder) -> None:
        self._database = database
        self._gathering = Gathering(embedder.embed)
        self.embedder = embedder

    @cached_property
    def model_id(self) -> int:
        """Raises Misconfigured when the database holds another model's vectors, Unavailable."""
        with self._database.across() as session:
            return embeddings.current_model_id(session, self.embedder.model)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of shape (len(texts), dimensions) in input order. Raises Unavailable."""
        if len(texts) == 1 and len(texts[0]) <= SHORT_CHARACTERS:
            vector: Vectors = self._gathering.embed(texts[0])
            return vector[None, :]
        return self.embedder.embed(texts)
