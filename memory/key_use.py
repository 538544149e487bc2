"""When each key was last used, noted behind the requests."""

import logging
import queue
import threading
import time
from uuid import UUID

from memory.errors import AppError
from memory.schemas import Caller
from memory.store import keys
from memory.store.database import Database

_log = logging.getLogger(__name__)

_BETWEEN_NOTES_SECONDS = 60.0
_WAITING_AT_MOST = 1_000
_REMEMBERED_AT_MOST = 10_000


class KeyUse:
    """A background thread that notes a key's use, at most once a minute: no request waits for it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._noted_at: dict[UUID, float] = {}
        self._waiting: queue.Queue[Caller | None] = queue.Queue(_WAITING_AT_MOST)
        self._thread: threading.Thread | None = None

    def used(self, caller: Caller) -> None:
        """Says that a key was used just now; returns at once."""
        if caller.key_id is None:
            return
        now = time.monotonic()
        # Without the lock: what is read here too early costs a note too many, which the database then leaves out.
        if now - self._noted_at.get(caller.key_id, -1e9) < _BETWEEN_NOTES_SECONDS:
            return
        with self._lock:
            if len(self._noted_at) >= _REMEMBERED_AT_MOST:
                self._noted_at.clear()
            self._noted_at[caller.key_id] = now
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="key use", daemon=True)
                self._thread.start()
        try:
            self._waiting.put_nowait(caller)
        except queue.Full:
            # A database so slow has more urgent things to do; the next minute brings another note.
            _log.warning("use of a key not noted")

    def close(self) -> None:
        """Notes what still waits, then ends."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            self._waiting.put(None)
            thread.join()

    def _run(self) -> None:
        while (caller := self._waiting.get()) is not None:
            try:
                with self._database.transaction(caller.tenant_id) as session:
                    keys.note_use(session, caller.key_id, _BETWEEN_NOTES_SECONDS)
            except AppError as error:
                _log.warning("use of a key not noted: %s", error)
            except Exception as error:  # noqa: BLE001  one key's trouble must not end it for all
                _log.error("use of a key not noted: %s", type(error).__name__)
