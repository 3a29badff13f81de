"""protocol=released follows the released code where it departs from what is right."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from sadi_bench.models.tiny_random import byte_tokenizer
from sadi_bench.results.reading import load_run
from sadi_bench.settings import RunConfig
from tasks.open_ended_files import write_triviaqa
from terminal import Finished, command
from text_runs import run_of, stand_alone, write_tasks

LONG = {2, 5, 502}  # numbers of items whose premise alone has more than 700 letters
PAIRS, TEST = range(1, 7), range(501, 505)


def item(number: int, twin: bool) -> str:
    premise = "x" * 800 if number in LONG else f"Premise {number}"
    return (
        f'<item id="{number + 1000 * twin}" asks-for="cause" '
        f'most-plausible-alternative="{(number + twin) % 2 + 1}">'
        f"<p>{premise}{' again' * twin}.</p><a1>One {number}.</a1><a2>Two {number}.</a2></item>"
    )


def write_copa(folder: Path, pairs: range = PAIRS) -> None:
    folder.mkdir()
    files = {
        "balacopa-dev-all.xml": [item(n, twin) for n in pairs for twin in (False, True)],
        "copa-test.xml": [item(n, False) for n in TEST],
    }
    for name, items in files.items():
        (folder / name).write_text(f"<copa-corpus>{''.join(items)}</copa-corpus>")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("released")
    write_copa(folder / "copa")
    write_copa(folder / "long", range(2, 3))
    write_tasks(folder)
    return folder


@pytest.fixture(autouse=True)
def _here(folder, monkeypatch):
    stand_alone(folder, monkeypatch)


def copa(*typed: str, data: str = "copa", protocol: str = "released") -> Finished:
    return command(
        "model=tiny-random", "task=copa", "method.top_k=[1,3]", "method.strength=[5,9]",
        f"task.data_dir={data}", "runs_dir=runs", f"protocol={protocol}", *typed,
    )  # fmt: skip


def prompts(rows: list[dict]) -> list[str]:
    return [byte_tokenizer().decode(row["prompt_tokens"]) for row in rows]


def test_pairs_are_stripped_and_what_is_tested_is_not():
    run = load_run(copa().path)
    assert {pair["prompt"][-8:] for pair in run.pairs} == {"\nAnswer:"}
    assert {pair["positive"] for pair in run.pairs} == {" A", " B"}
    assert prompts(run.pairs) == [pair["prompt"] for pair in run.pairs]
    assert {prompt[-8:] for prompt in prompts(run.docs)} == {"Answer:\n"}
    ours = load_run(copa(protocol="paper").path)
    assert {pair["prompt"][-8:] for pair in ours.pairs} == {"Answer:\n"}
    assert prompts(ours.docs) == prompts(run.docs)


def test_long_pairs_are_left_out_and_long_documents_marked():
    found = copa()
    run = load_run(found.path)
    assert len(run.pairs) == 2 * (len(PAIRS) - 2)  # an item and its twin
    assert max(len(p["prompt_tokens"] + p["positive_tokens"]) for p in run.pairs) <= 700
    counts = found.result["sadi_bench"]["counts"]
    assert (counts["pairs"], counts["long_pairs"], counts["skipped"]) == (8, 4, 1)
    notes = [
        "protocol=released: 4 pairs are left out: more than 700 tokens",
        "protocol=released: 1 test documents are skipped in steered cells: more than 700 tokens",
    ]
    assert found.result["sadi_bench"]["notes"][-3:-1] == notes
    assert all(note in (found.path / "log.txt").read_text() for note in notes)

    long = {row["doc_id"] for row in run.docs
            if len(row["prompt_tokens"] + row["choice_tokens"][row["gold"]]) > 700}  # fmt: skip
    grid = pd.read_parquet(found.path / "grid.parquet")
    assert len(long) == 1
    assert grid["skipped"].dtype == bool
    assert set(grid.loc[grid["skipped"], "doc_id"]) == long
    assert (grid.groupby("cell")["skipped"].sum() == 1).all()
    assert len(grid) == len(TEST) * 5


def test_the_paper_protocol_leaves_nothing_out():
    found = copa(protocol="paper")
    assert "skipped" not in pd.read_parquet(found.path / "grid.parquet")
    assert found.result["sadi_bench"]["counts"]["pairs"] == 12
    assert "long_pairs" not in found.result["sadi_bench"]["counts"]


def test_the_oracle_alone_is_reported_in_float32():
    found = copa()
    ours = found.result["sadi_bench"]
    assert ours["protocol"] == "released"
    assert ours["protocols"]["heldout"] is None
    assert ours["protocols"]["oracle"] is not None
    assert ours["environment"]["dtype"] == "float32"
    assert yaml.safe_load((found.path / "config.yaml").read_text())["model"]["dtype"] == "float32"
    assert set(found.result["results"]) == {"copa"}  # lm-eval skips nothing


def test_auto_is_float32_whatever_the_hardware_multiplies():
    assert RunConfig(protocol="released").model.dtype == "float32"
    assert RunConfig(protocol="paper").model.dtype == "auto"


def test_the_papers_metric_chooses_by_its_keyword_and_by_itself():
    assert copa("select_by=paper").path == copa().path


def test_another_metric_is_refused():
    found = copa("select_by=acc")
    assert found.code == 2
    assert found.complaints == [
        "sadi-bench: select_by=acc: protocol=released chooses by the paper's metric; choose "
        "select_by=paper or null, or protocol=paper."
    ]


def test_a_task_whose_pairs_are_all_too_long_is_refused():
    found = copa(data="long")
    assert found.code == 2
    assert found.complaints == [
        "sadi-bench: protocol=released: all 2 pairs have more than 700 tokens, so none is left; "
        "choose fewer task.fewshot, or protocol=paper."
    ]


def test_of_written_answers_the_prompt_alone_counts(folder):
    write_triviaqa(folder / "some-long")
    file = folder / "some-long" / "triviaqa_sm_sub.jsonl"
    file.write_text(
        re.sub(r"thing \d*[05]\b", lambda found: found[0] + "x" * 700, file.read_text())
    )
    found = run_of("triviaqa", "protocol=released", "task.data_dir=some-long", "method.strength=3")
    docs = [json.loads(line) for line in (found.path / "docs.jsonl").read_text().splitlines()]
    long = {row["doc_id"] for row in docs if len(row["prompt_tokens"]) > 700}
    grid = pd.read_parquet(found.path / "grid.parquet")
    assert 0 < len(long) < len(docs)
    assert set(grid.loc[grid["skipped"], "doc_id"]) == long
