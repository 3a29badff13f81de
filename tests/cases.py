"""Models, prompts, answers and pairs that the tests of the engine share."""

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from sadi_bench.grid_file import whole_frame
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.tiny_random import byte_tokenizer
from sadi_bench.scoring.bridge import SteeredLM
from sadi_bench.scoring.choices import ChoiceRequest, ChoiceScores
from sadi_bench.scoring.frame import score_grid
from sadi_bench.steering.activations import EncodedContrast
from sadi_bench.tasks.task import Task
from tiny import TINY

LENGTHS = (9, 30, 1)  # ragged; one beyond the windows of 16, one without a prefix


@cache
def tiny_lm(name: str, dtype: torch.dtype = torch.float32) -> LanguageModel:
    return LanguageModel(name, TINY[name]().to(dtype), byte_tokenizer())


def in_rows(lm: LanguageModel) -> LanguageModel:
    """The same model, its branches run in rows as for families that take no 4-D mask."""
    rows = LanguageModel(lm.name, lm.network, lm.tokenizer)
    vars(rows)["family"] = replace(lm.family, masks="alibi")
    return rows


def merging_tokenizer(bos: bool = False) -> PreTrainedTokenizerFast:
    """Train a BPE whose tokens beyond the bytes are `the`, `theatre`, `":` and their parts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=2 + 256 + 7,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["theatre", "the"] * 9 + ['":'] * 3, trainer)
    tokenizer.decoder = decoders.ByteLevel()
    if bos:
        ids = [("<s>", tokenizer.token_to_id("<s>"))]
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=ids
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def draw(rng: random.Random, count: int) -> tuple[int, ...]:
    return tuple(rng.randrange(3, 127) for _ in range(count))


def contrasts(count: int = 4, seed: int = 0) -> list[EncodedContrast]:
    """Pairs whose prompts and answers have 1 to 20 and 1 to 3 tokens."""
    rng = random.Random(seed)
    lengths = [1, 20, 5, 12]
    return [
        EncodedContrast(
            draw(rng, lengths[i % 4]), draw(rng, rng.randint(1, 3)), draw(rng, rng.randint(1, 3)), i
        )
        for i in range(count)
    ]


def pair_rows(pairs: Sequence[EncodedContrast]) -> list[dict]:
    """Pairs as the slow loop reads them."""
    return [
        {"prompt_tokens": p.prompt, "positive_tokens": p.positive, "negative_tokens": p.negative}
        for p in pairs
    ]


def plain_logits(lm: LanguageModel, tokens: Sequence[int]) -> torch.Tensor:
    """Logits [seq vocab] of the network alone."""
    with torch.no_grad():
        return lm.network(input_ids=torch.tensor([list(tokens)]), use_cache=False).logits[0]


def scored_grid(task: Task, steered: SteeredLM) -> pd.DataFrame:
    """The task's grid in one frame."""
    return whole_frame(score_grid(task, steered)[0]())


@cache
def requests_for(name: str, lengths: tuple[int, ...] = LENGTHS, seed: int = 0) -> tuple:
    """Ask a tiny model for answers of 1, 3, 2 and 1 tokens; the first three begin alike.

    The first two are what it says unsteered, so that greedy flags are true as well as false.
    """
    rng = random.Random(seed)
    requests = []
    for length in lengths:
        said = prompt = draw(rng, length)
        for _ in range(3):
            said = (*said, int(plain_logits(tiny_lm(name), said)[-1].argmax()))
        one, *more = said[length:]
        answers = ((one,), (one, *more), (one, *draw(rng, 1)), draw(rng, 1))
        requests.append(ChoiceRequest(prompt, answers))
    return tuple(requests)


def assert_same(
    found: Sequence[ChoiceScores], expected: Sequence[ChoiceScores], tolerance: float = 1e-5
) -> None:
    """All log-probabilities within `tolerance`, all decisions equal."""
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours.logprobs, theirs.logprobs, atol=tolerance, rtol=0)
        np.testing.assert_array_equal(ours.greedy, theirs.greedy)
        np.testing.assert_array_equal(ours.finite, theirs.finite)
