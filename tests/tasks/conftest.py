"""Small files in the original formats, with rows of our own, and the real configs composed."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from open_ended_files import OPEN_ENDED_WRITERS

from sadi_bench.scoring.judges.spec import JudgeSpec
from sadi_bench.tasks.spec import TaskSpec

REPOSITORY = Path(__file__).parents[2]
CONFIGS = REPOSITORY / "configs"

SUBJECTS = ("anatomy", "sociology")


@pytest.fixture(autouse=True)
def _nothing_of_this_machine(monkeypatch, tmp_path):
    """Neither the user's data folder nor the user's caches take part, unless a test says so."""
    monkeypatch.delenv("SADI_BENCH_DATA", raising=False)
    monkeypatch.setenv("SADI_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")


@pytest.fixture
def compose_task() -> Callable[..., TaskSpec]:
    """Compose configs/task/NAME.yaml as the command does."""

    def composed(name: str, *overrides: str) -> TaskSpec:
        store = ConfigStore.instance()
        if "base_task.yaml" not in store.repo.get("task", {}):
            store.store(group="task", name="base_task", node=TaskSpec)
            store.store(group="judge", name="base_judge", node=JudgeSpec)
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            config = compose(overrides=["+judge=none", f"+task={name}", *overrides])
        return OmegaConf.to_object(config)["task"]

    return composed


def _copa_item(number: int, twin: bool) -> str:
    right = (number + twin) % 2 + 1
    return (
        f'<item id="{number + 1000 * twin}" asks-for="{("cause", "effect")[number % 2]}" '
        f'most-plausible-alternative="{right}"><p>{"Twin" if twin else "Premise"} {number} &amp; '
        f"more.</p><a1>One {number}.</a1><a2>Two {number}.</a2></item>\n"
    )


def _copa_xml(numbers: range, *, twins: bool) -> str:
    items = "".join(
        _copa_item(n, twin) for n in numbers for twin in ((False, True) if twins else (False,))
    )
    head = '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE copa-corpus SYSTEM "copa.dtd">\n'
    return f'{head}<copa-corpus version="1.0">\n{items}</copa-corpus>\n'


def write_copa(folder: Path) -> None:
    folder.mkdir()
    (folder / "balacopa-dev-all.xml").write_text(_copa_xml(range(1, 13), twins=True))
    (folder / "copa-test.xml").write_text(_copa_xml(range(501, 509), twins=False))


def _jsonl(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_xcopa(folder: Path) -> None:
    def rows(split: str, count: int) -> list[dict]:
        return [
            {"premise": f"Premessa {split} {i}.", "choice1": f"Uno {i}.", "choice2": f"Due {i}.",
             "question": "effect", "label": i % 2, "idx": i, "changed": False}
            for i in range(count)
        ]  # fmt: skip

    for language in ("it", "zh"):
        _jsonl(folder / language / f"val.{language}.jsonl", rows("val", 9))
        _jsonl(folder / language / f"test.{language}.jsonl", rows("test", 6))


def write_storycloze(folder: Path) -> None:
    folder.mkdir()
    header = ["InputStoryid"] + [f"InputSentence{n}" for n in (1, 2, 3, 4)]
    header += ["RandomFifthSentenceQuiz1", "RandomFifthSentenceQuiz2", "AnswerRightEnding"]
    with (folder / "cloze_test_val__spring2016.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for i in range(366):
            story = [f"Story {i}, part {n}." for n in (1, 2, 3, 4)]
            writer.writerow([f"id-{i}", *story, f"End {i}.", f'Other "{i}".', i % 2 + 1])


def write_xnli(folder: Path) -> None:
    folder.mkdir()
    labels = ("entailment", "neutral", "contradiction")
    dev = [f'He said "{i}.\tClaim {i} {label}.\t{label}' for i in range(6) for label in labels]
    (folder / "dev-en.tsv").write_text("\n".join(dev) + "\n")
    test = [
        f"letters\t{label}\tText {i}.\tClaim {label} {i}.\tx\ty"
        for i in range(2)
        for label in labels
    ]
    header = "genre\tlabel\tsentence1_en\tsentence2_en\tsentence1_my\tsentence2_my"
    (folder / "my.genre.test.tsv").write_text("\n".join([header, *test]) + "\n")


def write_mmlu(folder: Path) -> None:
    """Write dev as this mirror has it (header, index) and test as the release (letters)."""
    for split, count in (("dev", 5), ("test", 503)):
        (folder / split).mkdir(parents=True)
        for subject in SUBJECTS:
            with (folder / split / f"{subject}_{split}.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                if split == "dev":
                    writer.writerow(["question", *(f"choice{n}" for n in range(4)), "answer"])
                for i in range(count):
                    answer = i % 4 if split == "dev" else "ABCD"[i % 4]
                    question = f"{subject} {split} {i},\nsecond line?"
                    writer.writerow([question, f"w{i}", f"x{i}", f"y{i}", f"z{i}", answer])


def write_sst(folder: Path) -> None:
    folder.mkdir()
    for split, count in (("train", 20), ("test", 8)):
        for kind, labels in (("binary", 2), ("fine", 5)):
            lines = [f"{i % labels} a {split} sentence {i} .\n" for i in range(count)]
            (folder / f"stsa.{kind}.{split}").write_text("".join(lines))


def write_sst_trees(folder: Path) -> None:
    (folder / "trees").mkdir(parents=True)
    for split, count in (("train", 20), ("test", 8)):
        lines = [
            f"({i % 5} (2 A) ({i % 5} (2 {split}) (2 (2 sentence) (2 {i}))) (2 .))\n"
            for i in range(count)
        ]
        (folder / "trees" / f"{split}.txt").write_text("".join(lines))


def write_boolq(folder: Path, *, train: int = 0) -> None:
    def rows(split: str, count: int) -> list[dict]:
        return [
            {"question": f"is {split} {i} so", "title": "Thing", "answer": i % 3 > 0,
             "passage": f"Passage {split} {i // 2}."}
            for i in range(count)
        ]  # fmt: skip

    _jsonl(folder / "dev.jsonl", rows("dev", 20))
    if train:
        _jsonl(folder / "train.jsonl", rows("train", train))
    fewglue = [{"question": "is it few", "passage": "Title -- Few passage.", "idx": 0,
                "label": True}]  # fmt: skip
    _jsonl(folder / "fewglue-train.jsonl", fewglue)


def write_winogrande(folder: Path) -> None:
    def rows(split: str, count: int) -> list[dict]:
        return [
            {"qID": f"{split}{i // 2}-{i % 2 + 1}", "sentence": f"{split} {i} and _ left.",
             "option1": f"Ann{i // 2}", "option2": f"Bo{i // 2}", "answer": str(i % 2 + 1)}
            for i in range(count)
        ]  # fmt: skip

    _jsonl(folder / "train_m.jsonl", rows("train", 20))
    _jsonl(folder / "dev.jsonl", rows("dev", 8))


def write_movie_reviews(folder: Path) -> None:
    folder.mkdir()
    ratings = (2.5, -1.0, 0.4, -3.2, 1.0)
    lines = [f"{i + 1}\t{ratings[i % 5]}\tReview sentence {i}.\r\n" for i in range(1250)]
    (folder / "movieReviewSnippets_GroundTruth.txt").write_bytes("".join(lines).encode())


WRITERS = {
    "boolq": write_boolq,
    "copa": write_copa,
    "mmlu": write_mmlu,
    "movie_reviews": write_movie_reviews,
    "sst": write_sst,
    "storycloze": write_storycloze,
    "winogrande": write_winogrande,
    "xcopa": write_xcopa,
    "xnli": write_xnli,
    **OPEN_ENDED_WRITERS,
}

# Task → its folder below SADI_BENCH_DATA.
FOLDER = {"nli": "xnli", "sst2": "sst", "sst5": "sst", "xcopa_it": "xcopa", "xcopa_zh": "xcopa",
          "movie_reviews_capital": "movie_reviews"}  # fmt: skip
OWN_TASKS = ("boolq", "copa", "mmlu", "movie_reviews", "nli", "sst2", "sst5", "storycloze",
             "winogrande", "xcopa_it", "xcopa_zh")  # fmt: skip


@pytest.fixture
def data_dir(tmp_path) -> Callable[[str], Path]:
    """Write the files of a task and return their folder."""

    def written(task: str) -> Path:
        name = FOLDER.get(task, task)
        folder = tmp_path / "data" / name
        if not folder.exists():
            folder.parent.mkdir(exist_ok=True)
            WRITERS[name](folder)
        return folder

    return written


@pytest.fixture
def own_task(compose_task, data_dir) -> Callable[..., TaskSpec]:
    """Compose a task on the small files."""

    def composed(task: str, *overrides: str) -> TaskSpec:
        return compose_task(task, f"task.data_dir={data_dir(task)}", *overrides)

    return composed
