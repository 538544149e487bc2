"""How text becomes lexemes: what Postgres' parser is given, and the exact terms it would take apart."""

import re
import unicodedata
from collections.abc import Iterable, Iterator

# An exact term counts little beside the stemmed words it is made of; it is what puts a code before its look-alikes.
EXACT_WEIGHT = 0.5
_EXACT_PREFIX = "="
_MOST_EXACT_TERMS = 2_000
_MOST_CHARACTERS = 200

# Soft hyphens split words that look whole; the typographic hyphens join codes that were copied from a page.
_INVISIBLE_OR_TYPOGRAPHIC = str.maketrans({"\u00ad": "", "\u2010": "-"})
# The parser reads `OPS-12226` as `op` and the number `-12226`.
_HYPHEN_BEFORE_DIGIT = re.compile(r"(?<=\w)-(?=\d)")
# None of these may try again from another place of the same run: a text can be one run of 10,000 characters.
_RUN = re.compile(r"\w+(?:[-./:@#]\w+)*")
_WORD = re.compile(r"\w+")
_CODE = re.compile(r"\d_?[^\W\d]|[^\W\d]_?\d|_\w")


def searchable(text: str) -> str:
    """The text as `to_tsvector` is to read it, in memories and queries alike."""
    return _HYPHEN_BEFORE_DIGIT.sub(" ", _one_spelling(text))


def exact_terms(text: str) -> list[str]:
    """Codes, ids, paths, addresses: words joined by marks or mixed with digits, each once, lower case, prefixed."""
    found: dict[str, None] = {}
    for term in _joined_and_codes(_one_spelling(text)):
        if len(term) <= _MOST_CHARACTERS:
            found[_EXACT_PREFIX + term.lower()] = None
        if len(found) == _MOST_EXACT_TERMS:
            break
    return list(found)


def any_of(lexemes: Iterable[str]) -> str:
    """A tsquery that matches what holds at least one of the lexemes."""
    return " | ".join(quoted(lexeme) for lexeme in lexemes)


def quoted(lexeme: str) -> str:
    """A lexeme as a tsquery operand, whatever characters it holds."""
    return "'" + lexeme.replace("\\", "\\\\").replace("'", "''") + "'"


def _one_spelling(text: str) -> str:
    # Ligatures of PDFs, full-width digits, accents of their own: written differently, meant alike.
    return unicodedata.normalize("NFKC", text).translate(_INVISIBLE_OR_TYPOGRAPHIC)


def _joined_and_codes(text: str) -> Iterator[str]:
    for match in _RUN.finditer(text):
        run = match.group()
        words = _WORD.findall(run)
        if len(words) > 1:
            yield run
        yield from (word for word in words if _CODE.search(word))
