"""The original benchmark files hold what their authors published, and every task runs on them."""

import os
from collections import Counter
from pathlib import Path

import pytest

from sadi_bench.tasks.pairs import contrastive_pairs
from sadi_bench.tasks.readers import READERS
from sadi_bench.tasks.sources import read_rows
from sadi_bench.tasks.task import load_task

# Read before the fixture of conftest.py takes the variable away.
BESIDE = Path(__file__).parents[3] / "shared" / "data"
DATA = Path(os.environ.get("SADI_BENCH_DATA") or BESIDE)

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(
        not DATA.is_dir(), reason=f"no benchmark files: SADI_BENCH_DATA or {BESIDE}"
    ),
]

XCOPA = [f"xcopa_{language}" for language in ("id", "it", "sw", "ta", "th", "tr", "vi", "zh")]
# Task → rows to identify on, rows to test on, and the three splits of the defaults.
COUNTS = {
    "copa": (1000, 500, (500, 498, 500)),
    "storycloze": (360, 1511, (240, 120, 1511)),
    "nli": (2490, 5010, (2000, 489, 5010)),
    "mmlu": (285, 14042, (186, 93, 12178)),
    "sst2": (6920, 1821, (1000, 500, 1821)),
    "sst5": (8544, 2210, (1000, 500, 2210)),
    "boolq": (32, 3270, (1000, 500, 1800)),
    "winogrande": (2558, 1267, (1000, 500, 1267)),
    **dict.fromkeys(XCOPA, (100, 500, (67, 33, 500))),
}
# The same of the open-ended tasks, whose answers differ from row to row.
OPEN_ENDED = {
    "triviaqa": (0, 3000, (1000, 500, 1000)),
    "truthfulqa": (0, 817, (272, 136, 409)),
    "truthfulqa_2025": (0, 790, (263, 132, 395)),
    "toxigen": (2224, 14 * 100, (1000, 500, 1400)),
}
ALL = COUNTS | OPEN_ENDED


@pytest.fixture(autouse=True)
def _real_files(monkeypatch, _nothing_of_this_machine):
    monkeypatch.setenv("SADI_BENCH_DATA", str(DATA))


@pytest.mark.parametrize("name", ALL)
def test_the_files_hold_the_published_numbers_of_rows(compose_task, name):
    rows = read_rows(compose_task(name))
    assert (len(rows.identify), len(rows.test)) == ALL[name][:2]


@pytest.mark.parametrize("name", ALL)
def test_the_default_splits_have_their_sizes_and_share_no_prompt(compose_task, name):
    task = load_task(compose_task(name), protocol="heldout", seed=0)
    splits = ("identify", "select", "test")
    assert tuple(len(task.rows(split)) for split in splits) == ALL[name][2]
    columns = [c for c in task.spec.columns if c not in ("id", "label", "answer")]
    seen = [{str([row[c] for c in columns]) for row in task.rows(split)} for split in splits]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])


@pytest.mark.parametrize("name", COUNTS)
def test_every_task_gives_forty_sane_pairs(compose_task, name):
    sizes = [f"task.{size}=40" for size in ("n_pairs", "n_select", "n_test")]
    task = load_task(compose_task(name, *sizes), protocol="heldout", seed=0)
    pairs = contrastive_pairs(task, seed=0)
    assert len(pairs) == len(task.rows("select")) == len(task.rows("test")) == 40
    golds = {row["doc_id"]: row["gold_index"] for row in task.rows("identify")}
    for pair in pairs:
        assert pair.positive == f" {task.spec.doc_to_choice[golds[pair.doc_id]]}"
        assert pair.negative != pair.positive
    assert len({pair.positive for pair in pairs}) > 1


@pytest.mark.parametrize("name", OPEN_ENDED)
def test_every_open_ended_task_gives_forty_sane_pairs(compose_task, name):
    sizes = [f"task.{size}=40" for size in ("n_pairs", "n_select", "n_test")]
    task = load_task(compose_task(name, *sizes), protocol="heldout", seed=0)
    pairs = contrastive_pairs(task, seed=0)
    assert len(pairs) == len(task.rows("select")) == len(task.rows("test")) == 40
    assert len({pair.positive for pair in pairs}) > 35
    for pair in pairs:
        assert pair.positive.startswith(" ") and pair.positive.strip()
        assert "\n" not in pair.positive + pair.negative
        assert (pair.negative == "") == (name == "triviaqa")
        assert pair.positive != pair.negative
        assert not pair.prompt[-1].isspace()


def test_toxigen_tests_a_hundred_prompts_of_fourteen_groups_and_pairs_thirteen(compose_task):
    task = load_task(compose_task("toxigen"), protocol="heldout", seed=0)
    tested = Counter(task.rows("test")["group"])
    assert len(tested) == 14 and set(tested.values()) == {100}
    assert tested.keys() - set(task.rows("identify")["group"]) == {"trans"}
    assert not any("\\n" in text for text in task.rows("test")["text"])


def test_truthfulqas_two_files_of_2021_hold_the_same_answers(compose_task):
    def answers(*overrides: str) -> dict:
        rows = read_rows(compose_task("truthfulqa", *overrides)).test
        return {row["question"]: (row["choices"][0], sorted(row["choices"]), row["true_answers"])
                for _, row in rows}  # fmt: skip

    json, csv = answers(), answers("task.files.test=[TruthfulQA.csv]")
    assert len(json) == len(csv) == 817
    assert json == csv


@pytest.mark.parametrize(
    ("name", "n_pairs"),
    [
        ("copa", 500),
        ("storycloze", 360),
        ("mmlu", 12178),
        ("xcopa_it", 100),
        ("triviaqa", 1000),
        ("truthfulqa", 817),
        ("truthfulqa_2025", 790),
        ("toxigen", 1000),
    ],
)
def test_the_papers_protocol_takes_the_papers_number_of_pairs(compose_task, name, n_pairs):
    task = load_task(compose_task(name), protocol="paper", seed=0)
    assert len(task.rows("identify")) == n_pairs


def test_xcopa_can_take_english_pairs(compose_task):
    task = load_task(
        compose_task("xcopa_sw", "task.pairs_from=english"), protocol="heldout", seed=0
    )
    assert [len(task.rows(s)) for s in ("identify", "select", "test")] == [500, 498, 500]


@pytest.mark.parametrize(("reader", "lines"), [("sst2", "binary"), ("sst5", "fine")])
@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_sst_trees_hold_the_same_sentences_and_labels_as_the_lines(reader, lines, split):
    def rows(path: Path) -> Counter:
        return Counter(
            (row["text"], row["label"]) for _, row in READERS[reader](path.read_text(), path)
        )

    sst = DATA / "sst"
    assert rows(sst / f"stsa.{lines}.{split}") == rows(sst / "trees" / f"{split}.txt")


def test_the_two_xnli_dev_files_agree_but_for_three_rows():
    def rows(name: str) -> list[dict]:
        path = DATA / "xnli" / name
        return [row for _, row in READERS["xnli"](path.read_text(), path)]

    plain, with_header = rows("dev-en.tsv"), rows("my.genre.dev.tsv")
    assert [row["label"] for row in plain] == [row["label"] for row in with_header]
    assert sum(a != b for a, b in zip(plain, with_header, strict=True)) == 3
