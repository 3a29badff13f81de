"""A task: its prompts, answers and chance level, and three splits that lm-eval can score."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import datasets
import pyarrow
from lm_eval.api.task import ConfigurableTask

from sadi_bench.errors import SettingError, unknown_name
from sadi_bench.tasks.catalogue import Catalogue, harness_rows
from sadi_bench.tasks.checks import check_fewshot, check_sides, check_spec
from sadi_bench.tasks.labels import target_rule
from sadi_bench.tasks.located import Rows
from sadi_bench.tasks.metrics import metric_of
from sadi_bench.tasks.quiet import quiet_libraries
from sadi_bench.tasks.recipe import Doc, Recipe
from sadi_bench.tasks.sources import read_rows
from sadi_bench.tasks.spec import (
    AS_THE_PAPER,
    PROTOCOLS,
    OutputType,
    PairsFrom,
    TaskSpec,
    TrailingNewline,
)
from sadi_bench.tasks.split_facts import (
    chance_of,
    common_answers,
    fingerprint_of,
    frequent_answer,
)
from sadi_bench.tasks.splits import Splits, carve, draw_splits

GOLD, DOC_ID, GROUP = "gold_index", "doc_id", "doc_group"  # the columns that every row gets
PAPER_MATCH = "paper_match"  # a metric of ours beside lm-eval's
TARGET = "target"  # and, where the model generates, the right side's text ("" without sides)


@dataclass(frozen=True)
class Task:
    """One task; the docs of `identify`, `select` and `test` are rows in lm-eval's order.

    Call `set_fewshot_seed` before `build_all_requests`: a sampler of demonstrations moves on.
    `answers` are the answers' texts where all scored documents have the same in the same order.
    `chance` is the expected acc (mc1) of a uniform guess, None where nothing can be guessed.
    A run must say all `notes` aloud.
    `fingerprint` changes with any row, prompt, answer or label of any split.
    """

    name: str
    spec: TaskSpec
    chance: float | None
    answers: tuple[str, ...] | None
    identify: ConfigurableTask
    select: ConfigurableTask | None
    test: ConfigurableTask
    notes: tuple[str, ...]
    fingerprint: str
    protocol: str = "heldout"
    seed: int = 0

    @property
    def keeps_newline(self) -> bool:
        """Tell whether a prompt's last newline is the prompt's, not the answer's."""
        return self.spec.trailing_newline == TrailingNewline.prompt

    @property
    def generates(self) -> bool:
        """Tell whether the model writes its answers, rather than choosing among given ones."""
        return self.test.config.output_type == OutputType.generate_until

    @property
    def metrics(self) -> dict[str, bool]:
        """Name the metrics, the most important first, and whether higher is better."""
        ours = {} if self.generates or self.spec.process_results else {PAPER_MATCH: True}
        return dict(self.test.higher_is_better()) | ours

    def rows(self, split: str) -> datasets.Dataset:
        """Return a split with all its columns and those that every row gets.

        `doc_id`: row number in its pool. `gold_index`. `doc_group`: what task.split_group says,
        the same for documents that share a premise, a passage or a twin.
        """
        return self.of(split).test_docs()

    def of(self, split: str) -> ConfigurableTask:
        """Return the lm-eval task of a split; KeyError where there is none."""
        task = {"identify": self.identify, "select": self.select, "test": self.test}.get(split)
        if task is None:
            raise KeyError(f"{self.name} has no {split} split")
        return task


def load_task(
    spec: TaskSpec, *, protocol: str, seed: int, catalogue: Catalogue | None = None
) -> Task:
    """Read a task's rows, draw its splits, and build one lm-eval task for each."""
    if protocol not in PROTOCOLS:
        raise unknown_name("protocol", protocol, PROTOCOLS)
    check_spec(spec)
    if spec.pairs_from == PairsFrom.english:
        spec = replace(spec, paper_pairs=spec.english_pairs)
    rows, config = harness_rows(spec, catalogue) if spec.harness else _own_rows(spec)
    recipe = Recipe(
        spec.name,
        config["doc_to_text"],
        config["doc_to_choice"],
        target_rule(spec, config["doc_to_target"]),
        spec.split_group,
        generates=config["output_type"] == OutputType.generate_until,
    )
    identify, test, notes = _pools(spec, recipe, rows, protocol)
    splits = draw_splits(spec, identify, test, protocol=protocol, seed=seed)
    check_sides(spec, splits)
    check_fewshot(spec, splits)
    if protocol in AS_THE_PAPER and spec.paper_identifies_on_test:
        rows.notes.clear()  # they are about rows that are not used
    notes += [*splits.notes, *frequent_answer(spec, splits.test)]
    build = _builder(spec, config, splits, protocol=protocol, seed=seed)
    return Task(
        name=spec.name,
        spec=spec,
        chance=None if recipe.generates else spec.chance or chance_of(spec, splits.test),
        answers=None if recipe.generates else common_answers(splits),
        identify=build("identify"),
        select=None if splits.select is None else build("select"),
        test=build("test"),
        notes=(*rows.notes, *notes),
        fingerprint=fingerprint_of(spec, config, splits),
        protocol=protocol,
        seed=seed,
    )


def _own_rows(spec: TaskSpec) -> tuple[Rows, dict[str, Any]]:
    return read_rows(spec), _config(spec)


def _config(spec: TaskSpec) -> dict[str, Any]:
    """Write a task of ours as an lm-eval config."""
    config = {
        "task": spec.name,
        "output_type": OutputType(spec.output_type).value,
        "doc_to_text": spec.doc_to_text,
        "doc_to_choice": spec.doc_to_choice,
        "doc_to_target": spec.doc_to_target,
        "target_delimiter": spec.target_delimiter,
        "metric_list": spec.metric_list,
    }
    if spec.process_results:
        config["process_results"] = metric_of(spec.process_results).compute
    if spec.output_type == OutputType.generate_until:
        config["generation_kwargs"] = copy.deepcopy(spec.generation_kwargs)  # lm-eval adds to it
    return config


def _pools(
    spec: TaskSpec, recipe: Recipe, rows: Rows, protocol: str
) -> tuple[list[Doc], list[Doc], list[str]]:
    if not rows.test:
        raise SettingError(f"task={spec.name}: its test file has no rows.")
    test = recipe.render(rows.test)
    if rows.carve and not (protocol in AS_THE_PAPER and spec.paper_identifies_on_test):
        return carve(spec, recipe.render(rows.identify, first_id=len(rows.test)), test)
    return recipe.render(rows.identify), test, []


def _builder(
    spec: TaskSpec, config: dict[str, Any], splits: Splits, *, protocol: str, seed: int
) -> Callable[[str], ConfigurableTask]:
    """Return what builds the lm-eval task of one split."""
    tables = datasets.DatasetDict(
        {
            name: _table(spec, docs)
            for name, docs in vars(splits).items()
            if name != "notes" and docs is not None
        }
    )
    # Where the paper makes pairs of the test rows, a demonstration must not be the row itself:
    # lm-eval leaves it out if both come from the split of the same name.
    demonstrations_from_own = protocol in AS_THE_PAPER and spec.paper_identifies_on_test
    target = {"doc_to_target": GOLD}
    if config["output_type"] == OutputType.generate_until:
        target = {"doc_to_target": TARGET, "doc_to_choice": None}  # the sides are for pairs alone

    def build(split: str) -> ConfigurableTask:
        full = {
            **config,
            **target,
            "num_fewshot": spec.fewshot,
            "custom_dataset": lambda **_: tables,
            "test_split": split,
            "fewshot_split": split if demonstrations_from_own else "identify",
        }
        try:
            with quiet_libraries():
                task = ConfigurableTask(config=full)
        except Exception as error:  # lm-eval checks with asserts, look-ups and errors of all kinds
            raise SettingError(
                f"task={spec.name}: lm-eval refuses it ({type(error).__name__}: {error}); check "
                "task.metric_list and the doc_to_* fields."
            ) from error
        task.set_fewshot_seed(seed)
        return task

    return build


def _table(spec: TaskSpec, docs: list[Doc]) -> datasets.Dataset:
    generates = spec.output_type == OutputType.generate_until
    if clash := {GOLD, DOC_ID, GROUP, *([TARGET] if generates else [])} & set(docs[0].row):
        raise SettingError(
            f"task={spec.name}: its rows have a column {clash.pop()}, a name this program needs; "
            "rename it with task.rename."
        )
    rows = [{DOC_ID: doc.doc_id, GROUP: doc.group, **doc.row, GOLD: doc.gold} for doc in docs]
    if generates:
        for row, doc in zip(rows, docs, strict=True):
            row[TARGET] = doc.choices[doc.gold] if doc.choices else ""
    try:
        return datasets.Dataset.from_list(rows)
    except pyarrow.ArrowException as error:
        raise SettingError(
            f"task={spec.name}: a column has values of several types ({error}); list the columns "
            "that the task needs in task.columns."
        ) from error
