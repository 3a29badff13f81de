"""What the released code of SADI (arXiv 2410.12299) does otherwise with pairs and documents.

It strips the prompts of pairs, and leaves long prompts out where it learns and where it steers.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from sadi_bench.errors import SettingError
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.scoring.frame import Pieces
from sadi_bench.steering.activations import EncodedContrast
from sadi_bench.steering.contrast import encode_pairs
from sadi_bench.tasks.pairs import ContrastivePair, as_released

MOST_TOKENS = 700
"""Of a prompt and its answer together."""


def released_pairs(
    lm: LanguageModel, pairs: Sequence[ContrastivePair], keep_newline: bool = False
) -> tuple[list[ContrastivePair], list[EncodedContrast], dict[str, int]]:
    """Strip the pairs' prompts and leave long pairs out; also as tokens, and counted.

    Raises:
        SettingError: all of them are too long.
    """
    pairs = as_released(pairs)
    encoded, merged = encode_pairs(lm, pairs, keep_newline, MOST_TOKENS)
    if not encoded:
        raise SettingError(
            f"protocol=released: all {len(pairs)} pairs have more than {MOST_TOKENS} tokens, so "
            "none is left; choose fewer task.fewshot, or protocol=paper."
        )
    kept = {pair.doc_id for pair in encoded}
    long = len(pairs) - len(encoded)
    counts = {"pairs": len(encoded), "merged_pairs": merged, "long_pairs": long}
    return [pair for pair in pairs if pair.doc_id in kept], encoded, counts


def left_out(counts: Mapping[str, int]) -> tuple[str, ...]:
    """Say how many `long_pairs` and `skipped` documents there are, where there are any."""
    told = {
        "long_pairs": "pairs are left out",
        "skipped": "test documents are skipped in steered cells",
    }
    return tuple(
        f"protocol=released: {counts[key]} {what}: more than {MOST_TOKENS} tokens"
        for key, what in told.items()
        if counts[key]
    )


def long_docs(docs: Iterable[Mapping[str, Any]]) -> set[tuple[str, int]]:
    """Name the documents, split and doc_id, whose prompt with the right answer is too long.

    `docs` are rows of docs.jsonl; a written answer has no tokens beforehand.
    """
    found = set()
    for doc in docs:
        tokens = len(doc["prompt_tokens"])
        if "choice_tokens" in doc:
            tokens += len(doc["choice_tokens"][doc["gold"]])
        if tokens > MOST_TOKENS:
            found.add((doc["split"], doc["doc_id"]))
    return found


def with_skipped(pieces: Pieces, long: Collection[tuple[str, int]]) -> Iterator[pd.DataFrame]:
    """Add `skipped`: whether a document is one of the long ones, and so has no steered cell.

    The column is the same in all cells of a document, though only steered ones leave it out.
    """
    for piece in pieces():
        rows = zip(piece["split"], piece["doc_id"], strict=True)
        yield piece.assign(skipped=[row in long for row in rows])
