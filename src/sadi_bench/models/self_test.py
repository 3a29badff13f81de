"""Does the engine compute what the network computes? Asked of every network that is loaded.

    prompt a b c d e f a b c      answers  d e f | d . .         two prompts of unequal length,
    prompt g h i j k g h          answers  i j k . . | . . . . . so that one is padded

All branches run packed behind a prefix, as in scoring, and as four plain sequences through the
network's own forward. A logit scale, a mask or a position that the engine gets wrong shows in the
log-probabilities. Prompts repeat themselves, for then the next token depends on the positions.
"""

import random
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sadi_bench.errors import SettingError
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.layout import layout_of
from sadi_bench.models.packing import run_branches, run_prefix
from sadi_bench.models.shapes import Float

LIMITS = {torch.float32: 0.01, torch.float16: 0.05, torch.bfloat16: 0.15}
"""The largest relative gap that rounding explains.

Measured on SmolLM2 and on tiny networks of all families: rounding makes 0.00001, 0.005 and 0.04; a
wrong mask or position makes 0.23 or more; a logit scale of s makes |s - 1|.
"""

Prompts = list[tuple[int, ...]]
Branches = list[list[tuple[int, ...]]]


@dataclass(frozen=True)
class Gap:
    """Say how far the engine's log-probabilities are from the network's own.

    `relative`: the standard deviation of their difference over the vocabulary, in standard
    deviations of the network's own, at the worst position. `nats`: the largest difference.
    `compared`: the number of positions where the network's own are finite.
    """

    relative: float
    nats: float
    compared: int


def self_tested(lm: LanguageModel, setting: str = "model") -> LanguageModel:
    """Return the model if the engine computes what its network computes; `setting` named it.

    Where the network's own log-probabilities are nowhere finite (float16 overflows), there is
    nothing to compare with: the model passes with a note. All it scores will be flagged.
    Raises SettingError for a gap that rounding does not explain.
    """
    found, dtype = self_test(lm), str(lm.dtype).removeprefix("torch.")
    if not found.compared:
        note = f"not self-tested: the log-probabilities of {lm.name} overflow in {dtype}"
        return replace(lm, notes=(*lm.notes, note))
    if found.relative <= LIMITS[lm.dtype]:  # false for NaN
        return lm
    raise SettingError(
        f"{setting}={lm.name}: failed the self-test: packed log-probabilities differ from the "
        f"network's own by up to {found.nats:.2g} nats ({found.relative:.0%} of their spread; "
        f"rounding in {dtype} explains {LIMITS[lm.dtype]:.0%}), so every score would be wrong; "
        "choose another model, or teach sadi_bench/models/families.py this one's logit scale, "
        "masks or positions."
    )


def self_test(lm: LanguageModel) -> Gap:
    """Score two prompts with two answers each in both ways; about 90 tokens are run."""
    prompts, branches = _questions(lm)
    with torch.inference_mode():
        return gap(_packed(lm, prompts, branches), _plain(lm, prompts, branches))


def gap(ours: Float[Tensor, "row vocab"], theirs: Float[Tensor, "row vocab"]) -> Gap:
    """Compare log-probabilities where the network's own are finite."""
    finite = theirs.isfinite().all(dim=1)
    theirs = theirs[finite]
    apart = ours.to(theirs.device)[finite] - theirs  # accelerate brings a network's output home
    if not len(theirs):
        return Gap(0.0, 0.0, 0)
    relative = apart.std(dim=1) / theirs.std(dim=1).clamp(min=torch.finfo(theirs.dtype).tiny)
    return Gap(relative.max().item(), apart.abs().max().item(), len(theirs))


def _questions(lm: LanguageModel) -> tuple[Prompts, Branches]:
    """Draw the tokens: no special ones, which some networks treat apart."""
    special = {lm.network.config.pad_token_id, *lm.tokenizer.all_special_ids}
    size = min(len(lm.tokenizer), lm.network.config.vocab_size)
    tokens = random.Random(0).choices([t for t in range(size) if t not in special], k=20)
    one, two, rest = tuple(tokens[:6]), tuple(tokens[6:11]), tuple(tokens[11:])
    branches = [[one[3:], (one[3], *rest[:2])], [two[2:] + rest[2:4], rest[4:]]]
    return [one + one[:3], two + two[:2]], branches


def _packed(lm: LanguageModel, prompts: Prompts, branches: Branches) -> Float[Tensor, "row vocab"]:
    layout = layout_of(prompts, branches, packed=lm.packs, keep_last=True)
    hidden = run_branches(lm, run_prefix(lm, prompts), layout, 1)[:, 0]
    rows = [hidden[i, path] for i, paths in enumerate(layout.paths) for path in paths]
    return _logprobs(lm.output_logits(torch.cat(rows)))


def _plain(lm: LanguageModel, prompts: Prompts, branches: Branches) -> Float[Tensor, "row vocab"]:
    """Run the network's own forward; the sequences are of one length and need no padding."""
    pairs = [(p, b) for p, of in zip(prompts, branches, strict=True) for b in of]
    ids = torch.tensor([prompt + branch for prompt, branch in pairs])
    logits = lm.network(input_ids=lm.place(ids), use_cache=False).logits
    starts = [len(prompt) - 1 for prompt, _ in pairs]
    return _logprobs(torch.cat([row[start:] for row, start in zip(logits, starts, strict=True)]))


def _logprobs(logits: Float[Tensor, "row vocab"]) -> Float[Tensor, "row vocab"]:
    return logits.float().log_softmax(dim=-1)
