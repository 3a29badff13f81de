"""Our numbers are those that lm-eval computes with its own model on the same task."""

from collections import Counter

import lm_eval
import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import LlamaConfig, LlamaForCausalLM

from cases import merging_tokenizer
from sadi_bench.errors import SettingError
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.tiny_random import tiny_random
from sadi_bench.scoring.bridge import SteeredLM, evaluate_cell
from sadi_bench.scoring.choices import ChoiceRequest, score_choices
from sadi_bench.scoring.frame import requests_by_doc
from sadi_bench.steering.intervention import UNSTEERED_MODEL
from sadi_bench.steering.methods.tda import Tda

METRICS = [f"{name},none" for name in ("acc", "acc_norm", "exact_match")]


def request(prompt: str, answer: str, kind: str = "loglikelihood") -> Instance:
    return Instance(request_type=kind, doc={}, arguments=(prompt, answer), idx=0,
                    metadata=("mine", 0, 1))  # fmt: skip


@pytest.mark.parametrize("fewshot", [0, 2])
def test_the_unsteered_cell_equals_lm_evals_own_model(reviews, speaker, steering, fewshot):
    theirs = lm_eval.simple_evaluate(
        model=HFLM(pretrained=speaker.network, tokenizer=speaker.tokenizer, batch_size=3),
        tasks=[reviews(fewshot).test],
        random_seed=None, numpy_random_seed=None, torch_random_seed=None, fewshot_random_seed=0,
        bootstrap_iters=0, task_manager=TaskManager(include_defaults=False),
    )  # fmt: skip
    task = reviews(fewshot).test
    steered = SteeredLM(speaker, steering())
    ours = evaluate_cell(steered, {"reviews": task}, 0)
    for metric in METRICS:
        assert ours["results"]["reviews"][metric] == theirs["results"]["reviews"][metric]
    assert ours["n-shot"] == theirs["n-shot"] == {"reviews": fewshot}
    samples = sorted(theirs["samples"]["reviews"], key=lambda sample: sample["doc_id"])
    asked = requests_by_doc(task)
    assert len(samples) == len(asked) == 9
    for sample in samples:
        instances = asked[sample["doc_id"]]
        texts = sample["arguments"]
        assert [instance.args for instance in instances] == texts
        assert texts[0][0].count("Review:") == fewshot + 1
        for instance, ((logprob, greedy),) in zip(instances, sample["resps"], strict=True):
            found, flags, *_ = steered.all_cells(instance.args)
            assert found[0] == pytest.approx(float(logprob), abs=1e-4)
            assert bool(flags[0]) == (greedy in (True, "True"))


def test_merged_and_padded_texts_are_scored_as_lm_evals_own_model_scores_them(speaker):
    texts = [("Answer:", " yes"), ("Answer: ", "yes"), ("Answer:\n", " B"), ("", "yes"),
             ("A longer prompt than the others", " no\n"), ("é", "世界")]  # fmt: skip
    requests = [request(*pair) for pair in texts]
    theirs = HFLM(pretrained=speaker.network, tokenizer=speaker.tokenizer, batch_size=2)
    for ours, expected in zip(
        SteeredLM(speaker).loglikelihood(requests),
        theirs.loglikelihood(requests, disable_tqdm=True),
        strict=True,
    ):
        assert ours[0] == pytest.approx(expected[0], abs=1e-4)
        assert ours[1] == expected[1]


def test_a_further_cell_is_scored_with_the_first(reviews, speaker, steering, monkeypatch):
    calls = Counter()

    def counted(name: str):
        own = getattr(ConfigurableTask, name)

        def call(self, *args, **kwargs):
            calls[name] += 1
            return own(self, *args, **kwargs)

        monkeypatch.setattr(ConfigurableTask, name, call)

    for name in ("build_all_requests", "fewshot_context", "process_results"):
        counted(name)
    task, steered = reviews().test, SteeredLM(speaker, steering())
    evaluate_cell(steered, {"reviews": task}, 0)
    assert calls == {"build_all_requests": 1, "fewshot_context": 9, "process_results": 9}
    scored = []
    monkeypatch.setattr("sadi_bench.scoring.bridge.score_choices", lambda *a: scored.append(a))
    for times, cell in enumerate((1, 4, 0), 2):
        evaluate_cell(steered, {"reviews": task}, cell)
        assert calls["process_results"] == 9 * times
    assert scored == []


def test_the_unsteered_model_is_asked_anew_whatever_was_asked_before(reviews, steering):
    """In bfloat16 a packed pass rounds otherwise: another run's cell 0 has other numbers."""
    network, tokenizer = tiny_random(0)
    half = LanguageModel("half", network.to(torch.bfloat16), tokenizer, fingerprint="the speaker")

    def scored(intervention):
        steered = SteeredLM(half, intervention)
        evaluate_cell(steered, {"reviews": reviews().test}, 0)
        return [scores.logprobs[number, 0] for scores, number in steered._scores.values()]

    alone = scored(UNSTEERED_MODEL)
    beside = scored(steering(site="neuron", patch="inflight"))
    assert beside != alone
    assert scored(UNSTEERED_MODEL) == alone


def test_what_a_method_does_is_averaged_once_over_the_prompts_of_every_cell(reviews, speaker):
    steered = SteeredLM(speaker, Tda([0.0, 0.9]).fit(speaker, []))
    task = reviews().test
    assert steered.measured() == {}
    evaluate_cell(steered, {"reviews": task}, 0)
    evaluate_cell(steered, {"reviews": task}, 1)
    prompts = {prompt for prompt, _ in steered._encoded.values()}
    alone = [
        score_choices(speaker, [ChoiceRequest(prompt, ((5,),))], steered.intervention)[0]
        for prompt in prompts
    ]
    expected = np.mean([scores.measured["ffn_sparsity"] for scores in alone], axis=0)
    found = steered.measured()["ffn_sparsity"]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found[0] == found[1] == 0 < found[2]
    steered.texts([("Review: more\n\nAnswer:", {"max_gen_toks": 2})], [2])
    assert steered.measured()["ffn_sparsity"][2] != found[2]


def test_every_cell_is_evaluated_as_if_it_were_the_only_one(reviews, speaker, steering):
    """Evaluating cell after cell on one task leaves no answers of the last cell behind."""
    steered, task, distinct = SteeredLM(speaker, steering()), reviews().test, set()
    for cell in (0, 3, 1, 0, 4, 2):
        again = evaluate_cell(steered, {"reviews": task}, cell)["results"]["reviews"]
        fresh = SteeredLM(speaker, steering())
        alone = evaluate_cell(fresh, {"reviews": reviews().test}, cell)["results"]["reviews"]
        assert again == alone
        distinct.add(tuple(again[metric] for metric in METRICS))
    assert len(distinct) > 1


def test_an_unseen_answer_of_a_known_prompt_is_scored(speaker, steering):
    steered = SteeredLM(speaker, steering(), cell=1)
    (first,) = steered.loglikelihood([request("Answer:", " yes")])
    both = steered.loglikelihood([request("Answer:", " no"), request("Answer:", " yes")])
    fresh = SteeredLM(speaker, steering(), cell=1)
    assert both[1] == first
    assert both[0] == pytest.approx(fresh.loglikelihood([request("Answer:", " no")])[0], abs=1e-5)


def test_merged_answers_are_counted_once_however_often_they_are_asked():
    tokenizer = merging_tokenizer()
    config = LlamaConfig(vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16,
                         num_hidden_layers=1, num_attention_heads=2)  # fmt: skip
    steered = SteeredLM(LanguageModel("merging", LlamaForCausalLM(config), tokenizer))
    requests = [request("the the", "atre of"), request("Answer:", " no")]
    for _ in range(2):
        steered.loglikelihood(requests)
    assert steered.merged == {("the the", "atre of")}


def test_a_kept_newline_is_scored_as_part_of_the_prompt(speaker):
    moved, kept = SteeredLM(speaker), SteeredLM(speaker, keep_newline=True)
    for steered in (moved, kept):
        steered.loglikelihood([request("Answer:\n", " B")])
    decode = speaker.tokenizer.decode
    assert [decode(t) for t in moved.tokens(("Answer:\n", " B"))] == ["Answer:", "\n B"]
    assert [decode(t) for t in kept.tokens(("Answer:\n", " B"))] == ["Answer:\n", " B"]


def test_requests_without_a_prompt_are_refused_in_one_line(speaker):
    kind = "loglikelihood_rolling"
    with pytest.raises(SettingError, match=rf"task\.name=mine.*{kind}.*multiple-choice") as caught:
        SteeredLM(speaker).loglikelihood_rolling([request("Answer:", "", kind)])
    assert "\n" not in str(caught.value)


def test_the_unsteered_scores_do_not_depend_on_the_grid(speaker, steering):
    requests = [request("Answer:", " yes"), request("A longer prompt", " no")]
    plain = SteeredLM(speaker).loglikelihood(requests)
    beside = SteeredLM(speaker, steering()).loglikelihood(requests)
    np.testing.assert_allclose([p for p, _ in beside], [p for p, _ in plain], rtol=0, atol=1e-5)
