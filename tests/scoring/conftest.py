"""A small sentiment task on local rows, as movie_reviews is, and a language model to ask."""

from collections.abc import Callable
from pathlib import Path

import datasets
import pytest

from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.tiny_random import tiny_random
from sadi_bench.steering.contrast import encode_pairs
from sadi_bench.steering.intervention import Intervention
from sadi_bench.steering.methods.sadi import Sadi
from sadi_bench.tasks.pairs import contrastive_pairs
from sadi_bench.tasks.spec import FileSource, TaskSpec
from sadi_bench.tasks.task import Task, load_task

WORDS = ("a dull film", "warm and funny", "not bad at all", "I slept", "see it twice, at least",
         "its jokes are older than its actors", "fine", "a mess of a story")  # fmt: skip


ANSWERS = ["Bad", "Quite good", "Good"]


def write_reviews(folder: Path, count: int = 40) -> None:
    folder.mkdir()
    ratings = (2.5, -1.5, 1.0, -3.2)
    lines = [f"{i + 1}\t{ratings[i % 4]}\t{WORDS[i % 8]} {i}.\r\n" for i in range(count)]
    (folder / "reviews.txt").write_bytes("".join(lines).encode())


@pytest.fixture(scope="session")
def reviews(tmp_path_factory) -> Callable[..., Task]:
    """Load the task with as many demonstrations as asked for, afresh each time."""
    folder = tmp_path_factory.mktemp("data") / "reviews"
    write_reviews(folder)
    caches = pytest.MonkeyPatch()
    caches.setattr(datasets.config, "HF_DATASETS_CACHE", folder.parent / "datasets")

    def load(fewshot: int = 0, **fields) -> Task:
        spec = TaskSpec(
            name="reviews",
            doc_to_text="Review: {{text}}\n\nAnswer:",
            doc_to_target="{{label * 2}}",
            columns=["id", "text", "label"],
            fewshot=fewshot,
            data_dir=str(folder),
            files=FileSource("reviews", "movie_reviews", test=["reviews.txt"]),
            **{"n_pairs": 6, "n_select": 5, "n_test": 9, "doc_to_choice": ANSWERS, **fields},
        )
        return load_task(spec, protocol="heldout", seed=0)

    yield load
    caches.undo()


@pytest.fixture(scope="session")
def speaker() -> LanguageModel:
    """A tiny model whose tokenizer knows every byte."""
    return LanguageModel("tiny-random", *tiny_random(0))


@pytest.fixture(scope="session")
def steering(reviews, speaker) -> Callable[..., Intervention]:
    """Fit SADI on the task's pairs."""
    pairs, _ = encode_pairs(speaker, contrastive_pairs(reviews(), seed=0))

    def fitted(**settings) -> Intervention:
        return Sadi(**{"top_k": [1, 4], "strength": [3.0, -6.0], **settings}).fit(speaker, pairs)

    return fitted
