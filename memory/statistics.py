"""Keeps the term statistics of large collections fresh, behind the writers."""

import logging
import threading
import time
from uuid import UUID

from memory.errors import AppError
from memory.store import collections, statistics
from memory.store.database import Database

_log = logging.getLogger(__name__)

# Below this many memories terms are counted at every search, so nothing can be stale.
SMALL = 2_000
_GROWTH = 1.2
_LOOK_EVERY_SECONDS = 0.5
_AFTER_TROUBLE_SECONDS = 5.0
_QUIET_SECONDS = 2.0
_BETWEEN_QUIET_REFRESHES_SECONDS = 30.0
# Even counting how many there are takes a while where there are very many.
_SECONDS_BETWEEN_COUNTS = 1 / 50_000


class Statistics:
    """A background thread that counts a collection's terms anew once it has grown by a fifth or has come to rest."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._changed_at: dict[tuple[UUID, UUID], float] = {}
        self._refreshed_at: dict[tuple[UUID, UUID], float] = {}
        self._count_again_at: dict[tuple[UUID, UUID], float] = {}
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def changed(self, tenant_id: UUID, collection_id: UUID) -> None:
        """Says that memories of this collection were added, changed or removed; returns at once."""
        with self._lock:
            self._changed_at[tenant_id, collection_id] = time.monotonic()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="statistics", daemon=True)
                self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        pause = _LOOK_EVERY_SECONDS
        while not self._stopping.wait(pause):
            pause = _LOOK_EVERY_SECONDS
            with self._lock:
                waiting = list(self._changed_at.items())
            for collection, changed_at in waiting:
                try:
                    settled = self._bring_up(*collection, quiet_since=changed_at)
                except AppError as error:
                    # Stale statistics only blur the ranking a little; a later look tries again.
                    _log.warning("statistics not refreshed: %s", error)
                    pause = _AFTER_TROUBLE_SECONDS
                    break
                except Exception as error:  # noqa: BLE001  a fault over one collection must not end it for all
                    # The kind alone: a message of Postgres may hold what a tenant wrote.
                    _log.error("statistics of a collection given up: %s", type(error).__name__)
                    settled = True
                with self._lock:
                    if settled and self._changed_at.get(collection) == changed_at:
                        del self._changed_at[collection]

    def _bring_up(self, tenant_id: UUID, collection_id: UUID, *, quiet_since: float) -> bool:
        """Refreshes if it is time; True when nothing more is to be done until the next change."""
        now = time.monotonic()
        if now < self._count_again_at.get((tenant_id, collection_id), now):
            return False
        quiet = now - quiet_since >= _QUIET_SECONDS
        rested = now - self._refreshed_at.get((tenant_id, collection_id), -1e9) >= _BETWEEN_QUIET_REFRESHES_SECONDS
        with self._database.transaction(tenant_id) as session:
            if not collections.keep(session, collection_id):
                return True
            documents = statistics.count_documents(session, collection_id)
            self._count_again_at[tenant_id, collection_id] = now + documents * _SECONDS_BETWEEN_COUNTS
            kept = statistics.kept_documents(session, collection_id)
            if documents < SMALL:
                if kept is not None:
                    statistics.forget(session, collection_id)
                return True
            if kept is None or documents >= kept * _GROWTH or documents * _GROWTH <= kept or (quiet and rested):
                statistics.refresh(session, tenant_id, collection_id, documents)
                self._refreshed_at[tenant_id, collection_id] = now
                return quiet
            return False
