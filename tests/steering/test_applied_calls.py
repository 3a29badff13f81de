"""The ways in which transformers runs a model inside a block."""

import threading

import pytest
import torch
from transformers import DynamicCache, TextIteratorStreamer, pipeline

from applied_cases import PROMPTS, fitted, padded
from cases import contrasts, tiny_lm
from sadi_bench.errors import SettingError
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.tiny_random import tiny_random
from sadi_bench.steering.applied import applied
from sadi_bench.steering.methods.sadi import Sadi

METHODS = ["sadi", "sadi every step", "inferaligner", "tda"]
GREEDY = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}


def prompts_of(lm, texts=PROMPTS):
    inputs = padded(lm, texts, "left")
    return {name: inputs[name] for name in ("input_ids", "attention_mask")}


def written(lm, method, inputs, **settings):
    """What `generate` puts behind its input, steered."""
    with applied(lm.network, fitted(lm.name, method), 1):
        ids = lm.network.generate(**inputs, **(GREEDY | settings))
    given = inputs.get("input_ids")
    return ids if given is None else ids[:, given.shape[1] :]


@pytest.fixture(params=METHODS)
def method(request):
    return request.param


@pytest.mark.parametrize("name", ["llama", "gemma3", "bloom"])
def test_beams_of_a_batch_are_those_of_each_prompt_alone(name, method):
    lm = tiny_lm(name)
    beams = {"num_beams": 3, "num_return_sequences": 2}
    cached = written(lm, method, prompts_of(lm), **beams)
    assert torch.equal(cached, written(lm, method, prompts_of(lm), **beams, use_cache=False))
    alone = [written(lm, method, prompts_of(lm, [prompt]), **beams) for prompt in PROMPTS]
    assert torch.equal(cached, torch.cat(alone))
    assert not torch.equal(cached, lm.network.generate(
        **prompts_of(lm), **GREEDY, **beams)[:, -6:])  # fmt: skip


def test_several_samples_of_a_prompt_are_steered_alike(method):
    lm = tiny_lm("llama")
    expected = written(lm, method, prompts_of(lm)).repeat_interleave(3, dim=0)
    likeliest = {"do_sample": True, "top_k": 1, "num_return_sequences": 3}
    assert torch.equal(written(lm, method, prompts_of(lm), **likeliest), expected)


def test_a_prompt_in_chunks_is_a_prompt(method):
    lm = tiny_lm("llama")
    expected = written(lm, method, prompts_of(lm))
    for size in (5, 23, 100):
        assert torch.equal(
            written(lm, method, prompts_of(lm), prefill_chunk_size=size), expected
        ), size


def test_assisted_decoding_writes_what_plain_decoding_writes(method):
    lm, other = tiny_lm("llama"), tiny_lm("mistral").network
    for prompt in (PROMPTS[1], PROMPTS[1] * 3):
        inputs = prompts_of(lm, [prompt])
        expected = written(lm, method, inputs)
        for drafts in ({"prompt_lookup_num_tokens": 3}, {"assistant_model": other}):
            assert torch.equal(written(lm, method, inputs, **drafts), expected), drafts


def test_the_network_can_draft_for_itself(method):
    """Its drafts come from a `generate` inside `generate`."""
    lm = tiny_lm("llama")
    inputs = prompts_of(lm, [PROMPTS[1]])
    expected = written(lm, method, inputs)
    assert torch.equal(written(lm, method, inputs, assistant_model=lm.network), expected)


def test_a_static_cache_holds_the_same(method):
    lm = tiny_lm("llama")
    expected = written(lm, method, prompts_of(lm))
    found = written(lm, method, prompts_of(lm), cache_implementation="static")
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ["llama", "gemma3", "opt"])
def test_embeddings_are_steered_as_their_tokens_are(name, method):
    lm = tiny_lm(name)
    inputs = prompts_of(lm)
    expected = written(lm, method, inputs)
    embeddings = lm.network.get_input_embeddings()(inputs.pop("input_ids")).detach()
    assert torch.equal(written(lm, method, inputs | {"inputs_embeds": embeddings}), expected)


def test_without_a_mask_generate_finds_the_padding_and_so_does_the_block(method):
    lm = tiny_lm("llama")
    inputs = prompts_of(lm)
    expected = written(lm, method, inputs)
    ids = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, 0)
    for chunk in (None, 5):
        found = written(lm, method, {"input_ids": ids}, prefill_chunk_size=chunk)
        assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ["sadi", "sadi every step", "tda"])
def test_a_prompt_whose_beginning_is_cached_is_the_same_prompt(name):
    """The steered positions lie behind what was cached, unsteered, outside of the block."""
    lm = tiny_lm("llama")
    prompt = torch.tensor([PROMPTS[1]])
    expected = written(lm, name, {"input_ids": prompt})
    past = DynamicCache()
    with torch.no_grad():
        lm.network(input_ids=prompt[:, :10], past_key_values=past)
    assert torch.equal(written(lm, name, {"input_ids": prompt}, past_key_values=past), expected)


def test_of_a_cached_prompt_generate_may_be_given_the_rest_alone():
    """Its mask says how much is cached; who needs the unsteered model's values needs it all."""
    lm = tiny_lm("llama")
    prompt = torch.tensor([PROMPTS[1]])
    rest = {"input_ids": prompt[:, 10:], "attention_mask": torch.ones_like(prompt)}
    for name in ("caa", "iti"):
        past = DynamicCache()
        with torch.no_grad():
            lm.network(input_ids=prompt[:, :10], past_key_values=past)
        expected = written(lm, name, {"input_ids": prompt})
        assert torch.equal(written(lm, name, rest, past_key_values=past), expected)
        assert not torch.equal(expected, lm.network.generate(prompt, **GREEDY)[:, -6:])
    for name in ("sadi", "tda"):
        past.crop(10 - past.get_seq_length())
        with pytest.raises(SettingError, match="give generate all of its tokens"):
            written(lm, name, rest, past_key_values=past)


def test_guidance_steers_the_negative_prompt_at_its_own_end(method):
    """Its passes stand beside those of `generate`: plain ones, with a cache of their own."""
    lm, prompts, scale = tiny_lm("llama"), (PROMPTS[1], PROMPTS[0]), 2.5
    inputs = prompts_of(lm, prompts[:1])
    guidance = {"guidance_scale": scale, "negative_prompt_ids": torch.tensor([prompts[1]])}
    found = written(lm, method, inputs, **guidance)[0]
    wanted, unwanted = (said_behind(lm, method, prompt, found) for prompt in prompts)
    assert torch.equal((scale * wanted + (1 - scale) * unwanted).argmax(dim=-1), found)
    assert not torch.equal(wanted.argmax(dim=-1), found)


def said_behind(lm, method, prompt, tokens):
    """Log-probabilities [token vocab] of what follows a prompt, in one plain pass."""
    ids = torch.tensor([[*prompt, *tokens.tolist()]])
    ends = [len(prompt)]
    with torch.no_grad(), applied(lm.network, fitted(lm.name, method), 1, prompt_tokens=ends):
        return lm.network(ids).logits[0, len(prompt) - 1 : -1].log_softmax(dim=-1)


def test_a_loop_of_ones_own_is_plain_even_after_a_broken_generate(method):
    """It prepares its passes as `generate` does, but the prompts of `generate` are not its own."""
    lm = tiny_lm("llama")
    prompt = torch.tensor([PROMPTS[0]])
    expected = written(lm, method, {"input_ids": prompt}, max_new_tokens=1)
    with torch.no_grad(), applied(lm.network, fitted("llama", method), 1):
        with pytest.raises(ValueError, match="no number"):
            lm.network.generate(torch.tensor([PROMPTS[1]]), logits_processor=[refuse], **GREEDY)
        inputs = lm.network.prepare_inputs_for_generation(prompt, use_cache=False)
        assert lm.network(**inputs).logits[0, -1].argmax() == expected[0, 0]


def refuse(_ids, _scores):
    raise ValueError("no number")


def test_a_prompt_ends_where_prompt_tokens_say_in_generate_too(method):
    """What stands behind the prompt in generate's input is as if it had been written."""
    lm = tiny_lm("llama")
    expected = written(lm, method, prompts_of(lm))
    longer = [(*p, *row[:2]) for p, row in zip(PROMPTS, expected.tolist(), strict=True)]
    ends = [len(prompt) for prompt in PROMPTS]
    with applied(lm.network, fitted("llama", method), 1, prompt_tokens=ends):
        ids = lm.network.generate(**prompts_of(lm, longer), **GREEDY)
    assert torch.equal(ids[:, -6:-2], expected[:, 2:])


@pytest.fixture(scope="module")
def speaker():
    return LanguageModel("tiny-random", *tiny_random(0))


def text_of(lm, text, tokens=8):
    ids = torch.tensor([lm.encode(text)])
    ids = lm.network.generate(ids, max_new_tokens=tokens, do_sample=False)
    return lm.tokenizer.decode(ids[0, len(lm.encode(text)) :])


@pytest.mark.parametrize("reach", ["last_prompt", "from_last_prompt"])
def test_a_pipeline_and_a_streaming_thread_are_steered(speaker, reach):
    intervention = Sadi(top_k=6, strength=[9.0], reach=reach).fit(speaker, contrasts())
    writer = pipeline("text-generation", model=speaker.network, tokenizer=speaker.tokenizer)
    texts = ["A dull film.", "See it twice, at least."]
    settings = {"max_new_tokens": 8, "do_sample": False, "return_full_text": False}
    with applied(speaker.network, intervention, 1):
        expected = [text_of(speaker, text) for text in texts]
        found = writer(texts, batch_size=1, **settings)
        streamer = TextIteratorStreamer(speaker.tokenizer, skip_prompt=True)
        ids = torch.tensor([speaker.encode(texts[0])])
        kwargs = {"max_new_tokens": 8, "do_sample": False, "streamer": streamer}
        thread = threading.Thread(target=speaker.network.generate, args=(ids,), kwargs=kwargs)
        thread.start()
        streamed = "".join(streamer)
        thread.join()
    assert [answers[0]["generated_text"] for answers in found] == expected
    assert streamed == expected[0]
    assert expected != [text_of(speaker, text) for text in texts]
    plain = writer(texts, batch_size=1, **settings)
    assert [answers[0]["generated_text"] for answers in plain] != expected
