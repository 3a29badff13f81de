"""Contrastive pairs as tokens: rendered text on one side, the engine on the other."""

from collections.abc import Sequence

from sadi_bench.models.language_model import EncodedPair, LanguageModel
from sadi_bench.steering.activations import EncodedContrast
from sadi_bench.tasks.pairs import ContrastivePair


def encode_pairs(
    lm: LanguageModel,
    pairs: Sequence[ContrastivePair],
    keep_newline: bool = False,
    most_tokens: int | None = None,
) -> tuple[list[EncodedContrast], int]:
    """Tokenise pairs as answers are scored; also count those with a token across the boundary.

    A blank answer has no token: its last token is the prompt's. A pair is left out where its prompt
    and the longer answer have more than `most_tokens`.
    """
    encoded, merged = [], 0
    for pair in pairs:
        right = lm.encode_pair(pair.prompt, pair.positive, keep_newline)
        wrong = EncodedPair(right.prompt, (), False)
        if pair.negative:
            wrong = lm.encode_pair(pair.prompt, pair.negative, keep_newline)
        tokens = len(right.prompt) + max(len(right.answer), len(wrong.answer))
        if most_tokens is not None and tokens > most_tokens:
            continue
        lm.check_length(tokens)
        encoded.append(EncodedContrast(right.prompt, right.answer, wrong.answer, pair.doc_id))
        merged += right.merged or wrong.merged
    return encoded, merged
