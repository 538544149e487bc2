"""Runs that are under way must fit the code of today: every kept history replays."""

import asyncio
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError

import worker

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.json"))


def replay(text: str) -> None:
    history = WorkflowHistory.from_json("kept", text)
    asyncio.run(Replayer(workflows=worker.WORKFLOWS).replay_workflow(history))


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
def test_a_kept_history_replays(path: Path) -> None:
    replay(path.read_text())


def test_every_workflow_has_a_history() -> None:
    kept = "".join(path.read_text() for path in HISTORIES)

    assert [name for name in (workflow.__name__ for workflow in worker.WORKFLOWS) if f'"{name}"' not in kept] == []


@pytest.mark.parametrize(
    ("name", "was", "is_now"),
    [
        ("drop-1.json", '"store_files"', '"keep_files"'),
        ("sweep-1.json", '"drop-', '"batch-'),
        ("dedup-1.json", '"merge_clusters"', '"merge"'),
        ("archive-stale-1.json", '"give_up_run"', '"give_up"'),
        ("curation-1.json", '"archive-stale-', '"stale-'),
        ("index-1.json", '"build_index"', '"build"'),
    ],
)
def test_another_order_of_steps_is_noticed(name: str, was: str, is_now: str) -> None:
    (text,) = [path.read_text() for path in HISTORIES if path.name == name]
    assert was in text

    with pytest.raises(NondeterminismError):
        replay(text.replace(was, is_now))
