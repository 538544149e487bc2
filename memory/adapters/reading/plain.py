"""Plain text and source code."""

from memory.adapters.reading.collector import Collector
from memory.adapters.reading.decoding import Decoded


def read_text(decoded: Decoded, found: Collector) -> None:
    """The whole text as one stretch, so that blank lines and indents stay as they are."""
    found.text(decoded.text)
