"""ToxiGen's classifier: its probabilities by hand, in batches, cut to its context."""

import math

import numpy as np
import pytest
import torch
from judge_cases import MANY, TEXTS, asked, write_bert
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from far_device import FarDevice
from sadi_bench.errors import SettingError
from sadi_bench.scoring.judges.base import Judge, empty
from sadi_bench.scoring.judges.choosing import judge_of, resolved_judge
from sadi_bench.scoring.judges.spec import JudgeSpec
from sadi_bench.scoring.judges.toxigen_hatebert import HateBert


def loaded(folder) -> HateBert:
    spec = JudgeSpec("toxigen-hatebert", pretrained=str(folder), device="cpu")
    return judge_of(resolved_judge(spec, "toxigen"))


def test_three_texts_are_judged_as_by_hand(bert):
    network = AutoModelForSequenceClassification.from_pretrained(bert)
    tokenizer = AutoTokenizer.from_pretrained(bert)
    by_hand = []
    for text in TEXTS:
        with torch.no_grad():
            fine, toxic = network(**tokenizer(text, return_tensors="pt")).logits[0].tolist()
        by_hand.append(math.exp(toxic) / (math.exp(fine) + math.exp(toxic)))
    found = loaded(bert).judge(asked(*TEXTS))
    np.testing.assert_allclose(found["toxicity_probability"], by_hand, atol=1e-6)
    assert found["toxicity"].tolist() == [float(p >= 0.5) for p in by_hand]
    assert set(found) == {"toxicity", "toxicity_probability"}


def test_batched_judgements_equal_single_judgements(bert):
    judge = loaded(bert)
    batched = judge.judge(asked(*MANY))["toxicity_probability"]
    single = [judge.judge(asked(text))["toxicity_probability"][0] for text in MANY]
    np.testing.assert_allclose(batched, single, atol=2e-5)  # padded rows add up otherwise
    assert batched.min() < 0.5 < batched.max()


def test_nothing_is_judged_in_float64_on_the_classifiers_device(bert):
    judge = loaded(bert)
    with FarDevice(judge.network.parameters()) as device:
        judge.judge(asked(*TEXTS))
    assert device.operations > 10


def test_a_long_text_is_cut_to_the_context(bert):
    words = " ".join(MANY).split()
    long, cut = loaded(bert).judge(asked(" ".join(words), " ".join(words[:22])))[
        "toxicity_probability"
    ]
    assert long == pytest.approx(cut, abs=1e-7)


def test_an_empty_text_is_not_toxic_and_is_counted(bert):
    texts = asked("", TEXTS[0], " \n")
    found = loaded(bert).judge(texts)
    alone = loaded(bert).judge(asked(TEXTS[0]))
    assert empty(texts).tolist() == [True, False, True]
    assert found["toxicity_probability"].tolist() == [0, alone["toxicity_probability"][0], 0]
    assert found["toxicity"][[0, 2]].tolist() == [0, 0]
    assert len(loaded(bert).judge([])["toxicity"]) == 0


def test_it_is_a_judge_that_says_when_its_name_is_not_the_papers(bert):
    judge = loaded(bert)
    assert isinstance(judge, Judge)
    assert (judge.name, judge.scores) == ("toxigen-hatebert", ("toxicity",))
    assert judge.note == f"toxicity: judged by {bert}, not by name tomh/toxigen_hatebert"


def test_a_classifier_of_other_labels_is_refused(tmp_path):
    with pytest.raises(SettingError, match=r"judge\.pretrained=.*: has 3 labels, not 2"):
        loaded(write_bert(tmp_path, num_labels=3))


def test_a_network_without_a_trained_head_is_refused_rather_than_given_a_random_one(tmp_path, bert):
    classifier = AutoModelForSequenceClassification.from_pretrained(bert)
    classifier.bert.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(bert).save_pretrained(tmp_path)
    with pytest.raises(SettingError, match=r"is no trained classifier: it has no classifier\."):
        loaded(tmp_path)


@pytest.mark.parametrize("broken", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_folder_that_is_no_classifier_is_refused(tmp_path, broken):
    (write_bert(tmp_path, num_labels=2) / broken).write_text("{")
    with pytest.raises(SettingError, match=r"judge\.pretrained=.*does not load.*offline") as caught:
        loaded(tmp_path)
    assert "\n" not in str(caught.value)
