"""What a task's YAML may say: one field a line, in lm-eval's vocabulary where it has a word."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

RELEASED = "released"
AS_THE_PAPER = ("paper", RELEASED)
"""Protocols that take the paper's own rows and hold none out to select on."""

PROTOCOLS = ("heldout", *AS_THE_PAPER)


class OutputType(str, Enum):
    """What the model is asked for, in lm-eval's words."""

    multiple_choice = "multiple_choice"
    generate_until = "generate_until"


class TrailingNewline(str, Enum):
    """Where a prompt's last newline belongs when a model's tokens are counted."""

    answer = "answer"
    prompt = "prompt"


class Negative(str, Enum):
    """How the wrong side of a contrastive pair is drawn."""

    random = "random"
    opposite = "opposite"
    untrue = "untrue"  # of several true answers none: true_answers counts them, the first ones


class PairsFrom(str, Enum):
    """Which language the identify and select rows are written in."""

    same = "same"
    english = "english"


@dataclass
class HubSource:
    """Where the rows are on the hub; `path` may be a local folder that `datasets` can load."""

    path: str | None = None
    name: str | None = None
    identify: list[str] = field(default_factory=list)  # split names; [] = carve from the test rows
    test: list[str] = field(default_factory=list)
    reader: str | None = None  # a name in HUB_READERS, where the columns are not the task's
    limits: dict[str, float] = field(default_factory=dict)  # keyword arguments of the reader
    kwargs: dict[str, Any] = field(default_factory=dict)  # of datasets.load_dataset


@dataclass
class FileSource:
    """Where the rows are in the original files.

    An item is a file name or a glob; `a|b` takes the first that exists; `[:360]` at its end takes
    rows. Of `identify` what exists is read; where nothing of it exists, `stand_in` and a carved
    part of the test rows are used and the run says so.
    """

    folder: str | None = None  # below $SADI_BENCH_DATA
    reader: str | None = None  # a name in READERS; null: csv, jsonl, parquet or tsv, by the suffix
    limits: dict[str, float] = field(default_factory=dict)  # keyword arguments of the reader
    identify: list[str] = field(default_factory=list)
    stand_in: list[str] = field(default_factory=list)
    test: list[str] = field(default_factory=list)


@dataclass
class PackageSource:
    """Rows inside an archive of the package index: `members` leads from archive to archive."""

    requirement: str | None = None
    sha256: str = ""
    members: list[str] = field(default_factory=list)


def _default_metrics() -> list[dict[str, Any]]:
    return [
        {"metric": metric, "aggregation": "mean", "higher_is_better": True}
        for metric in ("acc", "acc_norm", "exact_match")
    ]


@dataclass
class TaskSpec:
    """The fields of one task.

    Null sizes are the defaults: `n_pairs` is the paper's number where that leaves at least 100
    rows to select on, else two thirds of the rows; `n_select` is what is left, at most 500;
    `n_test` is every test row.
    """

    name: str = ""
    harness: bool = False  # `name` is a task of lm-eval; its own YAML says the rest
    include_path: str | None = None  # harness only: a folder with further lm-eval YAMLs

    # generate_until: doc_to_choice gives the two sides of a contrastive pair, one may be an empty
    # text (blank), and doc_to_target the right one, which is a demonstration's text too. Rows that
    # are only tested on need no sides.
    output_type: OutputType = OutputType.multiple_choice
    doc_to_text: str = ""
    doc_to_choice: Any = None  # a list of answers, a column, or a template that renders to a list
    doc_to_target: str = ""  # a column or a template: the index, or the text, of the right answer
    # A word in the column that doc_to_target names: the answer's index or text, or null to leave
    # such rows out.
    label_map: dict[Any, Any] = field(default_factory=dict)
    target_delimiter: str = " "
    trailing_newline: TrailingNewline = TrailingNewline.answer
    metric_list: list[Any] = field(default_factory=_default_metrics)
    process_results: str | None = None  # a name in METRICS; null: lm-eval's own way
    # until: texts that end a generation, max_gen_toks: its longest. Of a multiple_choice task:
    # once a cell is chosen, the model also answers in its own words.
    generation_kwargs: dict[str, Any] = field(default_factory=dict)
    chance: float | None = None  # null: 1 / number of answers, averaged over the test rows
    fewshot: int = 0
    negative: Negative = Negative.random
    group_by: list[str] = field(default_factory=list)  # columns to report averages by

    n_pairs: int | None = None
    n_select: int | None = None
    n_test: int | None = None
    n_test_cells: int | None = 8  # generate_until: the best of the select split; null: every cell
    paper_pairs: int | None = None  # null: the paper states none; protocol=paper takes every row
    paper_identifies_on_test: bool = False
    test_rows_per: dict[str, int] = field(default_factory=dict)  # column: the first n rows a value

    data_dir: str | None = None  # the folder of `files`; one file, where `files` names none
    # lm-eval's words for the source, in the place of hub: {path, name, kwargs, identify, test}.
    dataset_path: str | None = None  # json, csv, parquet or text with data_files; or a repository
    dataset_name: str | None = None
    dataset_kwargs: dict[str, Any] = field(default_factory=dict)
    data_files: Any = None  # short for dataset_kwargs: {data_files: ...}
    training_split: str | None = None
    validation_split: str | None = None
    test_split: str | None = None

    columns: list[str] = field(default_factory=list)  # kept from either source; []: all
    rename: dict[str, str] = field(default_factory=dict)  # column of a source: our name for it
    split_group: str | None = None  # template: rows that render alike never part company
    pairs_from: PairsFrom = PairsFrom.same
    hub: HubSource = field(default_factory=HubSource)
    identify_hub: HubSource = field(default_factory=HubSource)  # the identify rows' own repository
    files: FileSource = field(default_factory=FileSource)
    package: PackageSource = field(default_factory=PackageSource)
    english_hub: HubSource = field(default_factory=HubSource)
    english_files: FileSource = field(default_factory=FileSource)
    english_pairs: int | None = None  # paper_pairs where pairs_from=english
