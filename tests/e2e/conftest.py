"""What whole-product tests share."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.installation import Installation


@pytest.fixture
def installation() -> Iterator[Installation]:
    """An installation that is not started yet; whatever the test leaves running is ended."""
    folder = Path(tempfile.mkdtemp(prefix="rememberos-e2e-"))
    made = Installation(folder / "data")
    yield made
    made.kill()
    shutil.rmtree(folder)
