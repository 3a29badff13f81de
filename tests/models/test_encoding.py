"""Prompts and answers become the tokens that lm-eval's own `hf` model scores."""

import pytest
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedTokenizerFast

from cases import merging_tokenizer, tiny_lm
from sadi_bench.errors import SettingError
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.tiny_random import byte_tokenizer

PAIRS = [
    ("Question: is it good?\nAnswer:", " yes"),
    ("Question: is it good?\nAnswer: ", "yes"),
    ("Answer:\n", " B"),
    ("Answer:\n\n", "B"),
    ("Answer: \n \t ", " B"),
    ("the the", " the theatre"),
    ("the the", "atre of"),
    ('"text"', ':"yes"'),
    ("<s>Answer:", " no"),
    ("Grüße, 世界:", " schön\n"),
    (" leading", " and  double  spaces "),
]


TOKENIZERS = {
    "bytes": byte_tokenizer,
    "merging": merging_tokenizer,
    "merging with BOS": lambda: merging_tokenizer(bos=True),
}


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request) -> PreTrainedTokenizerFast:
    return TOKENIZERS[request.param]()


@pytest.fixture(scope="module")
def model(tokenizer) -> LanguageModel:
    return LanguageModel("llama", tiny_lm("llama").network, tokenizer)


@pytest.fixture(scope="module")
def harness_model(model) -> HFLM:
    return HFLM(pretrained=model.network, tokenizer=model.tokenizer)


@pytest.mark.parametrize(("prompt", "answer"), PAIRS)
def test_a_pair_is_split_as_lm_eval_splits_it(model, harness_model, prompt, answer):
    pair = model.encode_pair(prompt, answer)
    assert (list(pair.prompt), list(pair.answer)) == harness_model._encode_pair(prompt, answer)


def test_no_second_bos_where_the_prompt_brings_one():
    model = LanguageModel("llama", tiny_lm("llama").network, merging_tokenizer(bos=True))
    bos = model.tokenizer.bos_token_id
    assert model.encode("Answer:").count(bos) == model.encode("<s>Answer:").count(bos) == 1


def with_tokenizer(tokenizer: PreTrainedTokenizerFast) -> LanguageModel:
    return LanguageModel("llama", tiny_lm("llama").network, tokenizer)


def test_tokens_that_merge_across_the_boundary_are_noticed():
    model = with_tokenizer(merging_tokenizer())
    theatre = model.encode_pair("the the", "atre of")
    assert theatre.merged
    assert list(theatre.prompt) == model.encode("the the")
    assert not model.encode_pair("Answer:", " yes").merged
    assert not with_tokenizer(byte_tokenizer()).encode_pair("the the", "atre of").merged


def test_a_kept_newline_stays_in_the_prompt():
    model = with_tokenizer(byte_tokenizer())
    prompt, answer = "Answer:\n", " B"
    moved, kept = model.encode_pair(prompt, answer), model.encode_pair(prompt, answer, True)
    decode = model.tokenizer.decode
    assert (decode(moved.prompt), decode(moved.answer)) == ("Answer:", "\n B")
    assert (decode(kept.prompt), decode(kept.answer)) == ("Answer:\n", " B")
    spaces = model.encode_pair("Answer:\n \t", "B", True)
    assert (decode(spaces.prompt), decode(spaces.answer)) == ("Answer:\n", " \tB")


@pytest.mark.parametrize("keep_newline", [True, False])
def test_an_empty_answer_is_refused(model, keep_newline):
    with pytest.raises(SettingError, match="empty answer.*at least one character") as caught:
        model.encode_pair("Answer:", "", keep_newline)
    assert "\n" not in str(caught.value)


def test_an_empty_answer_behind_several_lines_is_refused_in_one():
    with pytest.raises(SettingError, match="empty answer") as caught:
        with_tokenizer(byte_tokenizer()).encode_pair("Is it?\nAnswer:", "")
    assert "\n" not in str(caught.value)


def test_a_prompt_that_swallows_the_answer_is_not_called_an_empty_answer():
    """`the` + `atre` is one token, as `the` alone is: nothing is left to score."""
    with pytest.raises(SettingError, match="merge") as caught:
        with_tokenizer(merging_tokenizer()).encode_pair("the the", "atre")
    assert "\n" not in str(caught.value)


def test_the_longest_sequence_is_found_where_lm_eval_looks(lm):
    expected = HFLM(pretrained=lm.network, tokenizer=lm.tokenizer).max_length
    assert lm.max_length == expected
