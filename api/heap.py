"""What the C library keeps of the memory that this process gave back to it: little."""

import ctypes

# Of mallopt: how many arenas there may be. glibc makes eight for each processor, and none gets what another has free.
_ARENA_MAX = -8
_ARENAS = 2


def bound_arenas() -> None:
    """Before threads are started. What asks for much memory at once comes in by the hundred, each in its own thread."""
    if (mallopt := _function("mallopt")) is not None:
        mallopt(_ARENA_MAX, _ARENAS)


def give_back() -> None:
    """Lets the system have what is free. Takes some milliseconds, without the interpreter's lock."""
    if (trim := _function("malloc_trim")) is not None:
        trim(ctypes.c_size_t(0))


def _function(name: str) -> "ctypes._NamedFuncPointer | None":
    # Only glibc has them.
    return getattr(ctypes.CDLL(None), name, None)
