"""What the released code of SADI (arXiv 2410.12299) does otherwise with pairs and documents.

It strips the prompts of pairs, and leaves long prompts out where it learns and where it steers.
"""

from collections.abc import Mapping, Sequence

import pandas as pd
from lm_eval.api.instance import Instance

from sadi_bench.errors import SettingError
from sadi_bench.scoring.bridge import SteeredLM
from sadi_bench.scoring.frame import requests_by_doc, scored_splits
from sadi_bench.steering.activations import EncodedContrast
from sadi_bench.steering.contrast import encode_pairs
from sadi_bench.tasks.pairs import ContrastivePair, as_released
from sadi_bench.tasks.task import DOC_ID, GOLD, Task

MOST_TOKENS = 700
"""Of a prompt and its answer together."""


def released_pairs(
    steered: SteeredLM, pairs: Sequence[ContrastivePair]
) -> tuple[list[ContrastivePair], list[EncodedContrast], dict[str, int]]:
    """Strip the pairs' prompts and leave long pairs out; also as tokens, and counted.

    Raises:
        SettingError: all of them are too long.
    """
    pairs = as_released(pairs)
    encoded, merged = encode_pairs(steered.lm, pairs, steered.keep_newline, MOST_TOKENS)
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


def with_skipped(grid: pd.DataFrame, task: Task, steered: SteeredLM) -> pd.DataFrame:
    """Add `skipped`: whether a document has more than MOST_TOKENS, and so no steered cell.

    The column is the same in all cells of a document, though only steered ones leave it out.
    """
    skipped = {
        (split, asked[0].doc[DOC_ID])
        for split, harness in scored_splits(task).items()
        for asked in requests_by_doc(harness).values()
        if _tokens(task, steered, asked) > MOST_TOKENS
    }
    rows = zip(grid["split"], grid["doc_id"], strict=True)
    return grid.assign(skipped=[row in skipped for row in rows])


def _tokens(task: Task, steered: SteeredLM, asked: Sequence[Instance]) -> int:
    """Count the prompt's tokens and the right answer's; a written answer has none beforehand."""
    if task.generates:
        return len(steered.text_tokens(asked[0].args[0]))
    return sum(map(len, steered.tokens(asked[asked[0].doc[GOLD]].args)))
