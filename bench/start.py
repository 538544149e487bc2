"""How long a start takes, and how much memory everything needs: `rememberos up` on data that is there already."""

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from bench.client import Api
from bench.instance import own, parser, write

EXAMPLES = Path(__file__).parent.parent / "examples"

_MIB = 1024 * 1024

Parts = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Start:
    """`seconds` from the command to the moment when everything serves; memory by part, after a search, and after
    every kind of example file has been read."""

    seconds: float
    at_rest: Parts
    after_reading: Parts


def started(folder: Path) -> Start:
    """One start and one end of everything."""
    begun = time.perf_counter()
    with own(folder) as up:
        seconds = time.perf_counter() - begun
        runtime = json.loads((folder / "runtime.json").read_text())
        pids = {"up": up.pid, **runtime["pids"]}
        with Api(runtime["api_url"], (folder / "admin-key").read_text().strip()) as api:
            api.store("start", [{"text": "The ferry leaves at seven."}])
            api.search("start", "When does the boat go?")
            at_rest = memory(pids)
            api.drop("start", [file for file in EXAMPLES.iterdir() if file.suffix != ".json"])
        return Start(seconds, at_rest, memory(pids))


def memory(pids: dict[str, int]) -> Parts:
    """MiB by part, its children included: `pss` shares common pages out fairly, `rss` counts them in each process."""
    families = {name: _family(pid) for name, pid in pids.items()}
    # The parts are children of `up` and must not be counted twice.
    parts = {process.pid for name, family in families.items() if name != "up" for process in family}
    families["up"] = [process for process in families["up"] if process.pid not in parts]
    return {name: _sum(family) for name, family in families.items()}


def _family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _sum(processes: list[psutil.Process]) -> dict[str, float]:
    total = {"pss": 0.0, "rss": 0.0}
    for process in processes:
        try:
            used: Any = process.memory_full_info()
        except psutil.NoSuchProcess:
            continue
        total["pss"] += used.pss / _MIB
        total["rss"] += used.rss / _MIB
    return total


def _arguments() -> argparse.Namespace:
    commands = parser(__doc__)
    commands.add_argument("--starts", type=int, default=3)
    return commands.parse_args()


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="rememberos-bench-") as name:
        first = started(Path(name))
        later = [started(Path(name)) for _ in range(arguments.starts)]
    seconds = median(start.seconds for start in later)
    print(f"first start on an empty folder {first.seconds:.1f} s, later ones {seconds:.1f} s (median of {len(later)})")
    print("MiB        after a search      after reading every example file")
    print(f"{'part':<10} {'PSS':>6} {'RSS':>6} {'':>4} {'PSS':>6} {'RSS':>6}")
    at_rest, after_reading = _with_sum(later[-1].at_rest), _with_sum(first.after_reading)
    for part, rest in at_rest.items():
        busy = after_reading[part]
        print(f"{part:<10} {rest['pss']:>6.0f} {rest['rss']:>6.0f} {'':>4} {busy['pss']:>6.0f} {busy['rss']:>6.0f}")
    figures = {"first_seconds": first.seconds, "later_seconds": seconds}
    write(arguments, {**figures, "mib_at_rest": at_rest, "mib_after_reading": after_reading})


def _with_sum(parts: Parts) -> Parts:
    return {**parts, "together": {kind: sum(used[kind] for used in parts.values()) for kind in ("pss", "rss")}}


if __name__ == "__main__":
    main()
