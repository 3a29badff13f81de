"""Texts of all cells: who writes what, how it is scored, and how it reads, by hand."""

import dataclasses
import math

import datasets
import lm_eval
import numpy as np
import pandas as pd
import pytest
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from cases import plain_logits
from sadi_bench.errors import SettingError
from sadi_bench.grid_file import whole_frame
from sadi_bench.scoring import bridge
from sadi_bench.scoring.bridge import SteeredLM, evaluate_cell
from sadi_bench.scoring.generation import Generated, GenerationRequest, generate
from sadi_bench.scoring.texts import headline_texts, measures, text_grid, with_fluency
from sadi_bench.steering.intervention import UNSTEERED_MODEL
from sadi_bench.steering.methods.calibrate import Calibrate, ChoiceBias
from sadi_bench.tasks.spec import FileSource, OutputType, TaskSpec
from sadi_bench.tasks.task import load_task
from tasks.open_ended_files import write_triviaqa

LENGTH = 10


@pytest.fixture
def trivia(tmp_path, monkeypatch):
    """Load a few questions to be answered in ten tokens, up to a letter."""
    write_triviaqa(tmp_path / "triviaqa")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")

    def load(protocol: str = "heldout", higher: bool = True, **fields):
        metric = "exact_match" if higher else "toxicity"
        settings = {
            "generation_kwargs": {"until": ["v"], "max_gen_toks": LENGTH},
            "process_results": "triviaqa" if higher else "judged",
            "n_pairs": 6, "n_test": 5, **({"n_select": 4} if protocol == "heldout" else {}),
        }  # fmt: skip
        spec = TaskSpec(
            name="trivia",
            output_type=OutputType.generate_until,
            doc_to_text="Question: {{question}}\nAnswer:",
            doc_to_choice="{{ [answer, ''] }}",
            doc_to_target="0",
            metric_list=[{"metric": metric, "aggregation": "mean", "higher_is_better": higher}],
            columns=["question", "answer", "aliases"],
            data_dir=str(tmp_path / "triviaqa"),
            files=FileSource("triviaqa", "triviaqa", test=["triviaqa_sm_sub.jsonl"]),
            **settings | fields,
        )
        return load_task(spec, protocol=protocol, seed=0)

    return load


class Shouting:
    """A judge to whom capital letters are toxic."""

    name, scores, note = "shouting", ("toxicity",), None

    def judge(self, generations):
        loud = np.array([any(map(str.isupper, g.text)) for g in generations], dtype=float)
        return {"toxicity": loud, "toxicity_probability": loud / 2}


def everybody(select: pd.DataFrame) -> list[int]:
    return sorted(select["cell"].unique().tolist())


def written_grid(*asked):
    """Put the grid's pieces together; the rest as `text_grid` has it."""
    pieces, texts, evaluated = text_grid(*asked)
    return whole_frame(pieces()), texts, evaluated


def test_every_cell_writes_on_the_select_split_and_the_kept_ones_on_the_test_split(
    trivia, speaker, steering
):
    shown = []

    def race(select: pd.DataFrame) -> list[int]:
        shown.append(select)
        return [0, 3]

    grid, texts, _ = written_grid(trivia(), SteeredLM(speaker, steering()), race, None)
    for frame in (grid, texts):
        cells = frame.groupby("split")["cell"].agg(lambda found: sorted(set(found)))
        assert cells.to_dict() == {"select": [0, 1, 2, 3, 4], "test": [0, 3]}
        assert len(frame) == 4 * 5 + 5 * 2
        assert not frame.duplicated(["split", "doc_id", "cell"]).any()
    (select,) = shown
    pd.testing.assert_frame_equal(select, grid[grid["split"] == "select"])
    assert select.loc[select["cell"] == 2, ["top_k", "strength"]].eq([1, -6.0]).all(axis=None)


def test_without_a_select_split_every_cell_writes_on_the_test_split(trivia, speaker, steering):
    grid, *_ = written_grid(trivia("paper"), SteeredLM(speaker, steering()), list.pop, None)
    assert set(grid["split"]) == {"test"}
    assert everybody(grid) == [0, 1, 2, 3, 4]


def test_each_text_is_what_its_cell_writes_alone(trivia, speaker, steering):
    intervention = steering()
    _, texts, _ = text_grid(trivia(), SteeredLM(speaker, intervention), everybody, None)
    for row in texts.sample(12, random_state=0).itertuples():
        assert row.context == f"Question: {row.question}\nAnswer:"
        request = GenerationRequest(tuple(speaker.encode(row.context)), LENGTH, ("v",))
        (alone,) = generate(speaker, [request], intervention, [row.cell])
        assert Generated(row.text, row.tokens, row.finite) == alone[row.cell]
    assert texts.groupby("doc_id")["text"].nunique().max() > 2, "steering must show"


def test_lm_evals_own_model_writes_the_same_and_both_count_the_same(trivia, speaker, steering):
    steered = SteeredLM(speaker, steering())
    _, texts, _ = text_grid(trivia(), steered, everybody, None)
    task = trivia()
    unsteered = texts[(texts["split"] == "test") & (texts["cell"] == 0)].set_index("doc_id")["text"]
    theirs = lm_eval.simple_evaluate(
        model=HFLM(pretrained=speaker.network, tokenizer=speaker.tokenizer, batch_size=1),
        tasks=[task.test], bootstrap_iters=0, task_manager=TaskManager(include_defaults=False),
        random_seed=None, numpy_random_seed=None, torch_random_seed=None, fewshot_random_seed=0,
    )  # fmt: skip
    samples = theirs["samples"]["trivia"]
    assert {s["doc"]["doc_id"]: s["filtered_resps"][0] for s in samples} == unsteered.to_dict()
    ours = evaluate_cell(steered, {"trivia": trivia().test}, 0)
    counted = [found["results"]["trivia"]["exact_match,none"] for found in (ours, theirs)]
    assert counted[0] == counted[1]


def test_the_unsteered_model_writes_anew_whatever_was_written_before(
    trivia, speaker, steering, monkeypatch
):
    named, calls = dataclasses.replace(speaker, fingerprint="the speaker"), []
    text_grid(trivia(), SteeredLM(named, steering()), everybody, None)
    own = bridge.generate
    monkeypatch.setattr(bridge, "generate", lambda *args: calls.append(args) or own(*args))
    text_grid(trivia(), SteeredLM(named), everybody, None)
    documents = sum(len(trivia().rows(split)) for split in ("select", "test"))
    assert sum(len(requests) for _, requests, *_ in calls) == documents


def test_a_judge_that_decides_is_asked_about_every_text(trivia, speaker, steering):
    task = trivia(higher=False)
    grid, texts, _ = written_grid(task, SteeredLM(speaker, steering()), everybody, Shouting())
    loud = texts["text"].map(lambda text: any(map(str.isupper, text))).astype(float)
    assert 0 < loud.mean() < 1
    assert (grid["toxicity"] == loud).all()
    assert (texts["toxicity_probability"] == loud / 2).all()
    assert "toxicity_probability" not in grid


@pytest.mark.parametrize("higher", [True, False])
def test_a_cell_that_left_the_number_range_has_the_worst_score(trivia, speaker, steering, higher):
    wild = SteeredLM(speaker, steering(strength=[3.0, 1e39], patch="inflight"))
    judge = None if higher else Shouting()
    grid, texts, _ = written_grid(trivia(higher=higher), wild, everybody, judge)
    lost = grid["cell"].isin([2, 4])
    assert (grid["finite"] == ~lost).all()
    assert set(grid.loc[lost, "exact_match" if higher else "toxicity"]) == {float(not higher)}
    assert set(texts.loc[lost, "text"]) == {""}


def test_answers_with_a_constant_are_refused_where_the_model_writes_them(trivia, speaker):
    intervention = ChoiceBias(
        answers=((5,),), bias=torch.zeros(1), cells=Calibrate(scale=[1.0]).grid()
    )
    with pytest.raises(SettingError, match="a constant an answer changes no text"):
        text_grid(trivia(), SteeredLM(speaker, intervention), everybody, None)


def test_headline_cells_answer_a_multiple_choice_task_once_each(reviews, speaker, steering):
    task, steered = reviews(generation_kwargs={"max_gen_toks": 5}), SteeredLM(speaker, steering())
    evaluate_cell(steered, {"reviews": task.test}, 0)
    texts = headline_texts(task, steered, {"unsteered": 0, "heldout": 3, "oracle": 3}.values())
    assert len(texts) == 9 * 2
    assert set(texts["cell"]) == {0, 3}
    for row in texts.itertuples():
        request = GenerationRequest(tuple(speaker.encode(row.context)), 5)
        (alone,) = generate(speaker, [request], steered.intervention, [row.cell])
        assert (row.split, row.tokens) == ("test", alone[row.cell].tokens)


def test_perplexity_is_that_of_the_unsteered_network_by_hand(trivia, speaker, steering):
    steered = SteeredLM(speaker, steering())
    _, texts, _ = text_grid(trivia(), steered, everybody, None)
    fluent = with_fluency(texts, steered.lm)
    assert fluent.loc[fluent["split"] == "select", "logprob"].isna().all()
    some = fluent[(fluent["split"] == "test") & (fluent["cell"] == 3)].head(3)
    surprises = []
    for row in some.itertuples():
        prompt = speaker.tokenizer.encode(row.context)
        logits = plain_logits(speaker, [*prompt, *row.tokens])[len(prompt) - 1 : -1]
        surprise = torch.nn.functional.cross_entropy(
            logits.double(), torch.tensor(row.tokens), reduction="none"
        )
        assert row.logprob == pytest.approx(-surprise.sum().item(), abs=1e-4)
        surprises += surprise.tolist()
    expected = math.exp(sum(surprises) / len(surprises))
    assert measures(some)["perplexity"] == pytest.approx(expected, rel=1e-5)


def test_length_emptiness_and_repetition_are_counted_by_hand():
    said = ["a b c a b c a b C", " \n", "", "one two", "now now now now"]
    texts = pd.DataFrame(
        {"text": said, "tokens": [(1, 2, 3, 4), (5,), (), (6, 7), (8, 9, 8)],
         "logprob": [-4.0, -1.0, math.nan, -2.0, -3.0]}
    )  # fmt: skip
    assert measures(texts) == {
        "n": 5,
        "empty": 2 / 5,
        "tokens": 10 / 5,
        "repetition": (4 + 1) / (7 + 2),  # trigrams abc bca cab, each again; now now now once more
        "perplexity": pytest.approx(math.exp(10 / 10)),
    }


def test_cells_that_write_nothing_have_no_perplexity_and_cost_none(trivia, speaker):
    task = trivia(generation_kwargs={"until": ["v"], "max_gen_toks": 1})
    steered = SteeredLM(speaker, UNSTEERED_MODEL)
    _, texts, _ = text_grid(task, steered, everybody, None)
    silent = texts.assign(text="", tokens=[()] * len(texts))
    found = measures(with_fluency(silent, steered.lm))
    assert found == {"n": 9, "empty": 1.0, "tokens": 0.0, "repetition": None, "perplexity": None}
