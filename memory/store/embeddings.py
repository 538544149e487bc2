"""Which model's vectors this database holds."""

from sqlalchemy import text
from sqlmodel import Session

from memory.errors import Misconfigured
from memory.ports import EmbeddingModel
from memory.store.database import WITHOUT_SCHEMA


def current_model_id(session: Session, model: EmbeddingModel) -> int:
    """The id of `model` in this database. Raises Misconfigured when the database holds another model's vectors."""
    row = session.execute(text("select id, name, dimensions from embedding_models where is_current")).one_or_none()
    if row is None:
        raise Misconfigured(WITHOUT_SCHEMA)
    if (row.name, row.dimensions) != (model.name, model.dimensions):
        raise Misconfigured(
            f"the database holds vectors of {row.name} ({row.dimensions} dimensions), the settings name {model.name} "
            f"({model.dimensions}): set EMBEDDING_MODEL back, or run `rememberos reembed`"
        )
    return int(row.id)
