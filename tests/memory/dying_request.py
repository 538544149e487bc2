"""Processes that carry out a request with an `Idempotency-Key` and are killed, each at another statement of it.

`python -m tests.memory.dying_request KEY`: the first dies by SIGKILL before its first statement, the next before its
second, commits included, the last after its commit, before anything was answered. Each brings its number as token. It
prints how many there were.
"""

import os
import signal
import sys
from dataclasses import replace

from sqlalchemy import Engine, event

from memory.embedding import Embedding
from memory.idempotency import repeatable
from memory.memories import Memories
from memory.schemas import MemoryCreate
from memory.services import build
from memory.settings import Settings
from tests.fakes import WordEmbedder

AFTER_THE_LAST = 77


def carry_out(key: str, statement: int) -> None:
    """Ends before the statement of this number, or with `AFTER_THE_LAST` when there are not so many."""
    services = build(Settings(_env_file=None))
    embedding = Embedding(services.database, WordEmbedder())
    memories = Memories(services.database, services.grants, embedding, services.objects, services.statistics)
    caller = services.accounts.authenticate(key)
    once = repeatable(path="/people/memories", key=str(statement), body=b"the same").once
    left = statement

    def count(*_: object, **__: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "before_cursor_execute", count)
    event.listen(Engine, "commit", count)
    memories.create(replace(caller, once=once), "people", MemoryCreate(text="Ada"))
    os._exit(AFTER_THE_LAST)


def main(key: str) -> None:
    statement = 0
    ended = -signal.SIGKILL
    while ended == -signal.SIGKILL:
        statement += 1
        child = os.fork()
        if child == 0:
            carry_out(key, statement)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if ended != AFTER_THE_LAST:
        raise SystemExit(f"a request ended with {ended}")
    sys.stdout.write(str(statement))


if __name__ == "__main__":
    main(sys.argv[1])
