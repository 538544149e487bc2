"""How well search finds: loads a retrieval set in the BEIR layout through the API and prints the usual measures."""

import json
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.client import Api
from bench.instance import instance, parser, write
from bench.metrics import MEASURES, averaged

OWN_SET = Path(__file__).parent / "data" / "kestrel"
MODES = ("hybrid", "vector", "text")

_DEPTH = 50
_LONGEST_TEXT = 10_000
# A large collection's term statistics are brought up in the background once writing has come to rest.
_LARGE = 2_000
_REST_SECONDS = 6

Json = dict[str, Any]
Judged = dict[str, dict[str, int]]


@dataclass(frozen=True)
class RetrievalSet:
    """`corpus` and `queries` as their lines were; `judged`: query id to document id to score."""

    corpus: list[Json]
    queries: list[Json]
    judged: Judged


def read(folder: Path) -> RetrievalSet:
    """A folder with corpus.jsonl, queries.jsonl and qrels/test.tsv (or qrels.tsv)."""
    qrels = folder / "qrels" / "test.tsv"
    judged: Judged = defaultdict(dict)
    lines = (qrels if qrels.exists() else folder / "qrels.tsv").read_text("utf-8").splitlines()
    for line in lines[1:]:
        query, document, score = line.split("\t")[:3]
        judged[query][document] = int(score)
    queries = [query for query in _lines(folder / "queries.jsonl") if query["_id"] in judged]
    return RetrievalSet(_lines(folder / "corpus.jsonl"), queries, dict(judged))


def text_of(document: Mapping[str, Any]) -> str:
    """What is stored of a document: title and text, cut to a memory's longest."""
    return f"{document.get('title') or ''} {document['text']}".strip()[:_LONGEST_TEXT]


def memory_of(document: Mapping[str, Any]) -> Json:
    """A document as the API takes it."""
    order = {name: document[name] for name in ("sequence", "position") if document.get(name) is not None}
    return {"text": text_of(document), "metadata": {"doc_id": document["_id"]}, **order}


@contextmanager
def loaded(api: Api, corpus: Sequence[Json]) -> Iterator[dict[str, str]]:
    """The corpus in collections of its own while the block runs; gives their names by the corpus' own names."""
    parts: dict[str, list[Json]] = defaultdict(list)
    for document in corpus:
        parts[document.get("collection") or ""].append(memory_of(document))
    prefix = f"bench-{uuid.uuid4().hex[:8]}"
    names = {part: f"{prefix}-{number}" for number, part in enumerate(parts)}
    try:
        for part, memories in parts.items():
            api.store(names[part], memories)
        if max(map(len, parts.values())) >= _LARGE:
            time.sleep(_REST_SECONDS)
        yield names
    finally:
        for name in names.values():
            api.forget(name)


def rankings(api: Api, names: Mapping[str, str], queries: Sequence[Json], mode: str) -> dict[str, list[str]]:
    """Document ids by query id, best first; a query without a collection of its own searches all."""
    alone = next(iter(names.values())) if len(names) == 1 else None
    result = {}
    for query in queries:
        collection = names.get(query.get("collection") or "", alone)
        answer = api.search(collection, query["text"], mode=mode, limit=_DEPTH, min_score=0)
        ours = [hit for hit in answer["results"] if hit["collection"] in names.values()]
        result[query["_id"]] = [hit["metadata"]["doc_id"] for hit in ours]
    return result


def measured(api: Api, retrieval: RetrievalSet, modes: Sequence[str] = MODES) -> dict[str, dict[str, float]]:
    """Every measure by mode."""
    with loaded(api, retrieval.corpus) as names:
        return {mode: averaged(rankings(api, names, retrieval.queries, mode), retrieval.judged) for mode in modes}


def main() -> None:
    commands = parser(__doc__)
    commands.add_argument("folder", type=Path, nargs="?", default=OWN_SET, help="retrieval set, default: our own")
    commands.add_argument("--mode", action="append", choices=MODES, help="only this mode; may be given several times")
    arguments = commands.parse_args()
    retrieval = read(arguments.folder)
    with instance(arguments) as running:
        figures = measured(running.api, retrieval, arguments.mode or MODES)
    print(f"{arguments.folder.name}: {len(retrieval.corpus)} documents, {len(retrieval.queries)} queries")
    print("mode    " + "".join(f"{name:>11}" for name in MEASURES))
    for mode, values in figures.items():
        print(f"{mode:<8}" + "".join(f"{values[name]:>11.4f}" for name in MEASURES))
    write(arguments, figures)


def _lines(path: Path) -> list[Json]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


if __name__ == "__main__":
    main()
