"""What is written in every cell, held against one sequence at a time and transformers' own."""

import random
from itertools import product

import pytest
import torch

from cases import contrasts, draw, in_rows, pair_rows, tiny_lm
from sadi_bench.errors import SettingError
from sadi_bench.scoring import generation, writing
from sadi_bench.scoring.choices import ChoiceRequest, score_choices
from sadi_bench.scoring.generation import GenerationRequest, generate
from sadi_bench.steering.intervention import UNSTEERED_MODEL
from sadi_bench.steering.methods.inferaligner import InferAligner
from sadi_bench.steering.methods.sadi import Sadi
from sadi_bench.steering.methods.tda import Tda
from slow_loop import rank_elements, score_document

PROMPTS = [draw(random.Random(7), n) for n in (9, 30, 1, 20)]  # some beyond the windows of 16
LAYOUTS = ["llama", "mistral_window", "gemma3", "bloom", "opt"]  # one of each way to mask
WAYS = list(product(("clean", "inflight"), ("last_prompt", "from_last_prompt")))


def requests(max_new_tokens=12, until=()):
    return [GenerationRequest(p, max_new_tokens, until) for p in PROMPTS]


def steering(lm, **settings):
    settings = {"site": "neuron", "top_k": [2, 9], "strength": [-4.0, 9.0]} | settings
    return Sadi(**settings).fit(lm, contrasts())


def everything(lm, intervention, asked=None, **kwargs):
    cells = range(len(intervention.cells))
    return generate(lm, asked or requests(), intervention, cells, **kwargs)


def ends_of(lm):
    return {lm.tokenizer.eos_token_id, lm.network.generation_config.eos_token_id}


def assert_greedy(lm, site, ways, prompts):
    """Every token written must be the arg-max of the slow loop behind what came before it."""
    ranked = rank_elements(lm.network, pair_rows(contrasts()), site)
    asked = [GenerationRequest(prompt, 8) for prompt in prompts]
    parted = 0
    for patch, reach in ways:
        intervention = steering(lm, site=site, patch=patch, reach=reach, top_k=9)
        for prompt, cells in zip(prompts, everything(lm, intervention, asked), strict=True):
            for cell in intervention.cells:
                written = cells[cell.index]
                said = [written.tokens]
                if len(written.tokens) < 8:
                    said = [(*written.tokens, end) for end in ends_of(lm)]
                top = [e[:2] for e in ranked[: cell.params.get("top_k", 0)]]
                _, greedy, _ = score_document(
                    lm.network, prompt, said, top, cell.params.get("strength"),
                    site, patch, "mlp_out", reach,
                )  # fmt: skip
                assert written.finite and any(greedy), (patch, reach, cell)
                parted += written.tokens != cells[0].tokens
    return parted


def test_every_token_is_what_the_slow_loop_would_choose(lm):
    parted = assert_greedy(lm, "neuron", WAYS, PROMPTS[:1])
    parted += assert_greedy(lm, "neuron", WAYS[1:3], PROMPTS[1:3])
    assert parted, "steering must show"


@pytest.mark.parametrize("name", ["llama", "bloom", "gemma3"])
@pytest.mark.parametrize("site", ["head", "hidden"])
def test_it_is_at_every_site(name, site):
    assert assert_greedy(tiny_lm(name), site, WAYS, PROMPTS[:2]), "steering must show"


@pytest.mark.parametrize("name", ["llama", "bloom", "gemma3", "opt"])
@pytest.mark.parametrize("method", [Tda([1.5]), InferAligner(top_k=2, alpha=[4.0, -4.0])])
def test_methods_that_read_prompts_or_reach_all_tokens_write_what_they_score(name, method):
    """Their scores are held against the slow loop elsewhere; what is written must be greedy."""
    lm = tiny_lm(name)
    intervention, parted = method.fit(lm, contrasts()), 0
    asked = [GenerationRequest(prompt, 6) for prompt in PROMPTS]
    for prompt, cells in zip(PROMPTS, everything(lm, intervention, asked), strict=True):
        for cell, written in cells.items():
            said = [written.tokens]
            if len(written.tokens) < 6:
                said = [(*written.tokens, end) for end in ends_of(lm)]
            scores = score_choices(lm, [ChoiceRequest(prompt, tuple(said))], intervention)[0]
            assert scores.greedy[:, cell].any()
            parted += written.tokens != cells[0].tokens
    assert parted, "steering must show"


def test_the_unsteered_cell_writes_what_transformers_generates(lm):
    intervention = steering(lm)
    for prompt, cells in zip(PROMPTS, everything(lm, intervention), strict=True):
        expected = lm.network.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=12,
            do_sample=False,
            pad_token_id=0,
            eos_token_id=sorted(ends_of(lm)),
        )[0, len(prompt) :]
        assert [t for t in expected.tolist() if t not in ends_of(lm)] == list(cells[0].tokens)


@pytest.mark.parametrize("name", LAYOUTS)
def test_batched_equals_single_whatever_the_budget(name):
    lm = tiny_lm(name)
    for patch, reach in WAYS[1:3]:
        intervention = steering(lm, patch=patch, reach=reach)
        whole = everything(lm, intervention)
        assert everything(lm, intervention, token_budget=100) == whole
        alone = [everything(lm, intervention, [request])[0] for request in requests()]
        assert alone == whole
        some = generate(lm, requests(), intervention, [3, 1], token_budget=1)
        assert some == [{cell: cells[cell] for cell in (1, 3)} for cells in whole]


@pytest.mark.parametrize("name", LAYOUTS)
def test_rows_in_sequences_of_their_own_write_the_same(name, monkeypatch):
    lm = tiny_lm(name)
    for patch, reach in WAYS[1:3]:
        intervention = steering(lm, patch=patch, reach=reach)
        monkeypatch.setattr(writing, "UNSEEN_KEYS", 10**9)
        shared = everything(lm, intervention)
        monkeypatch.setattr(writing, "UNSEEN_KEYS", -(10**9))
        assert everything(lm, intervention) == shared


@pytest.mark.parametrize("name", ["llama", "mistral_window", "gemma3", "opt"])
def test_without_a_4d_mask_the_same_is_written(name):
    lm = tiny_lm(name)
    if name in ("llama", "opt"):
        assert everything(in_rows(lm), steering(lm)) == everything(lm, steering(lm))
    long = [GenerationRequest(PROMPTS[1], 40)]
    cells = everything(lm, steering(lm, reach="from_last_prompt"), long)[0]
    assert max(len(written.tokens) for written in cells.values()) == 40


def test_texts_end_at_their_limits_and_before_what_ends_them():
    lm = tiny_lm("llama")
    free = everything(lm, steering(lm))
    stop = free[0][0].text[3:5]
    limits = [GenerationRequest(p, 3 + i, ("", stop)) for i, p in enumerate(PROMPTS)]
    for i, (cells, whole) in enumerate(
        zip(everything(lm, steering(lm), limits), free, strict=True)
    ):
        for cell, written in cells.items():
            cut = lm.tokenizer.decode(whole[cell].tokens[: 3 + i])
            assert written.text == cut.split(stop)[0]
            assert len(written.tokens) <= 3 + i


def test_a_cell_that_leaves_the_number_range_writes_nothing_and_spoils_no_other():
    lm = tiny_lm("llama")
    found = everything(lm, steering(lm, top_k=9, strength=[9.0, 1e39], patch="inflight"))
    expected = everything(lm, steering(lm, top_k=9, strength=[9.0], patch="inflight"))
    for cells, others in zip(found, expected, strict=True):
        assert [cells[c].finite for c in range(3)] == [True, True, False]
        assert (cells[2].text, cells[2].tokens) == ("", ())
        assert [cells[c] for c in (0, 1)] == [others[c] for c in (0, 1)]


def test_a_text_that_does_not_fit_behind_its_prompt_is_refused_in_one_line():
    lm = tiny_lm("llama")
    too_long = "max_gen_toks=500: with a prompt of 30 tokens that is 530, the context of llama 512"
    with pytest.raises(SettingError, match=f"{too_long}; choose at most 482"):
        generate(lm, requests(500), UNSTEERED_MODEL, [0])


def test_out_of_memory_halves_the_pass_and_loses_nothing(monkeypatch):
    lm, sizes, write = tiny_lm("llama"), [], generation.write_batch
    whole = everything(lm, steering(lm))

    def short_of_memory(model, batch, intervention):
        sizes.append(sum(len(cells) for _, cells in batch))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("tried to allocate too much")
        return write(model, batch, intervention)

    monkeypatch.setattr(generation, "write_batch", short_of_memory)
    assert everything(lm, steering(lm)) == whole
    assert sizes[0] == 20 and sizes[-1] <= 2
    with pytest.raises(SettingError, match="out of memory with one prompt and one cell"):
        monkeypatch.setattr(generation, "write_batch", fail)
        everything(lm, steering(lm))


def fail(*_):
    raise torch.OutOfMemoryError("no memory at all")
