"""How long a start takes, and how much memory everything needs: `rememberos up` on data that is there already."""

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from bench.client import Api
from bench.instance import own, parser, write

_MIB = 1024 * 1024


def started(folder: Path) -> tuple[float, dict[str, dict[str, float]]]:
    """Seconds from the command to the moment when everything serves, and the memory of each part after a search."""
    begun = time.perf_counter()
    with own(folder) as up:
        seconds = time.perf_counter() - begun
        runtime = json.loads((folder / "runtime.json").read_text())
        with Api(runtime["api_url"], (folder / "admin-key").read_text().strip()) as api:
            api.store("start", [{"text": "The ferry leaves at seven."}])
            api.search("start", "When does the boat go?")
        return seconds, memory({"up": up.pid, **runtime["pids"]})


def memory(pids: dict[str, int]) -> dict[str, dict[str, float]]:
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
        first, _ = started(Path(name))
        later = [started(Path(name)) for _ in range(arguments.starts)]
    seconds = median(taken for taken, _ in later)
    used = later[-1][1]
    print(f"first start on an empty folder {first:.1f} s, later ones {seconds:.1f} s (median of {len(later)})")
    print(f"{'part':<10} {'PSS MiB':>8} {'RSS MiB':>8}")
    for part, values in used.items():
        print(f"{part:<10} {values['pss']:>8.0f} {values['rss']:>8.0f}")
    total = {kind: sum(values[kind] for values in used.values()) for kind in ("pss", "rss")}
    print(f"{'together':<10} {total['pss']:>8.0f} {total['rss']:>8.0f}")
    write(arguments, {"first_seconds": first, "later_seconds": seconds, "memory_mib": used, "together_mib": total})


if __name__ == "__main__":
    main()
