"""One file a format: original files → rows with the columns and values of the same data on the hub.

A reader takes a file's text and path and yields (line number, row). It says what a broken row
should have looked like by raising `BrokenRow`; columns, empty texts and labels are checked once
for all sources, in `sources.py`.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from sadi_bench import plugins
from sadi_bench.errors import unknown_key, unknown_name
from sadi_bench.tasks.readers.boolq import read_boolq
from sadi_bench.tasks.readers.copa import read_copa
from sadi_bench.tasks.readers.delimited import read_csv, read_tsv
from sadi_bench.tasks.readers.lines import NumberedRows, read_jsonl
from sadi_bench.tasks.readers.mmlu import read_mmlu
from sadi_bench.tasks.readers.movie_reviews import read_movie_reviews
from sadi_bench.tasks.readers.own_pairs import read_pairs
from sadi_bench.tasks.readers.parquet import read_parquet
from sadi_bench.tasks.readers.real_toxicity_prompts import read_real_toxicity_prompts
from sadi_bench.tasks.readers.sst import read_sst2, read_sst5
from sadi_bench.tasks.readers.storycloze import read_storycloze
from sadi_bench.tasks.readers.toxigen import read_toxigen, read_toxigen_hub
from sadi_bench.tasks.readers.triviaqa import read_triviaqa, read_triviaqa_hub
from sadi_bench.tasks.readers.truthfulqa_rows import read_truthfulqa, read_truthfulqa_hub
from sadi_bench.tasks.readers.xnli import read_xnli

Reader = Callable[..., NumberedRows]

READERS: dict[str, Reader] = {
    "boolq": read_boolq,
    "copa": read_copa,
    "csv": read_csv,
    "jsonl": read_jsonl,
    "mmlu": read_mmlu,
    "movie_reviews": read_movie_reviews,
    "pairs": read_pairs,
    "parquet": read_parquet,
    "sst2": read_sst2,
    "sst5": read_sst5,
    "storycloze": read_storycloze,
    "toxigen": read_toxigen,
    "triviaqa": read_triviaqa,
    "truthfulqa": read_truthfulqa,
    "tsv": read_tsv,
    "xnli": read_xnli,
}
BINARY = ("parquet",)  # readers that take the file's bytes instead, and number rows, not lines

OF_SUFFIX = {".csv": "csv", ".jsonl": "jsonl", ".parquet": "parquet", ".tsv": "tsv"}
"""The reader of a file where none is named."""

# For rows of the hub whose columns are not the task's: each takes a split's name and its rows.
HUB_READERS: dict[str, Reader] = {
    "real_toxicity_prompts": read_real_toxicity_prompts,
    "toxigen": read_toxigen_hub,
    "triviaqa": read_triviaqa_hub,
    "truthfulqa": read_truthfulqa_hub,
}


def file_reader(name: str, limits: Mapping[str, float]) -> Reader:
    """Look up what task.files.reader names, here or in another package, and set its limits."""
    reader = plugins.by_name("task.files.reader", name, READERS, plugins.READERS)
    return _limited("task.files", reader, limits)


def hub_reader(name: str, limits: Mapping[str, float]) -> Reader:
    """Look up what task.hub.reader names, and set its limits."""
    if name not in HUB_READERS:
        raise unknown_name("task.hub.reader", name, HUB_READERS)
    return _limited("task.hub", HUB_READERS[name], limits)


def _limited(setting: str, reader: Reader, limits: Mapping[str, Any]) -> Reader:
    parameters = inspect.signature(reader).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    for limit in limits:
        if limit not in known:
            raise unknown_key(f"{setting}.limits", limit, known)
    return partial(reader, **limits)
