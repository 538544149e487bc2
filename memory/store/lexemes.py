"""How text becomes lexemes: what Postgres' parser is given, and the exact terms it would take apart."""

import re
from collections.abc import Iterable

# An exact term counts little beside the stemmed words it is made of; it is what puts a code before its look-alikes.
EXACT_WEIGHT = 0.5
_EXACT_PREFIX = "="
_MOST_EXACT_TERMS = 2_000
_MOST_CHARACTERS = 200

# The parser reads `OPS-12226` as `op` and the number `-12226`.
_HYPHEN_BEFORE_DIGIT = re.compile(r"(?<=\w)-(?=\d)")
_JOINED = re.compile(r"\w+(?:[-./:@#_]\w+)+")
_CODE = re.compile(r"\w*(?:\d_?[^\W\d]|[^\W\d]_?\d|_\w)\w*")


def searchable(text: str) -> str:
    """The text as `to_tsvector` is to read it, in memories and queries alike."""
    return _HYPHEN_BEFORE_DIGIT.sub(" ", text)


def exact_terms(text: str) -> list[str]:
    """Codes, ids, paths, addresses: words joined by marks or mixed with digits, each once, lower case, prefixed."""
    found: dict[str, None] = {}
    for pattern in (_JOINED, _CODE):
        for match in pattern.finditer(text):
            term = match.group().lower()
            if len(term) <= _MOST_CHARACTERS:
                found[_EXACT_PREFIX + term] = None
            if len(found) == _MOST_EXACT_TERMS:
                return list(found)
    return list(found)


def any_of(lexemes: Iterable[str]) -> str:
    """A tsquery that matches what holds at least one of the lexemes."""
    return " | ".join(quoted(lexeme) for lexeme in lexemes)


def quoted(lexeme: str) -> str:
    """A lexeme as a tsquery operand, whatever characters it holds."""
    return "'" + lexeme.replace("\\", "\\\\").replace("'", "''") + "'"
