"""Which answers the model gives, and how many of them steering changed."""

from collections.abc import Mapping, Sequence

import numpy as np

from sadi_bench.results.scored import Part, Scored, unsteered

NEARLY_ALL = 0.95
"""A model that gives one answer to so many documents is called a constant predictor."""


def answer_report(scored: Scored, rows: Mapping[str, Sequence[Part]]) -> dict[str, object] | None:
    """Count the likeliest answers of every row on its documents; None where none are chosen.

    `changed`: the share of documents whose likeliest answer is not the unsteered model's. Where all
    documents have the same answers also `names`, and the share of each answer: of the right ones
    (`gold`) and of each row (`shares`); `constant` names rows where one takes nearly all.
    A row of several cells gives the mean over them. Rows with overflowed documents are left out.
    """
    if not scored.chooses:
        return None
    whole = {row: parts for row, parts in rows.items() if not _overflows(scored, parts)}
    changed = {row: _changed(scored, parts) for row, parts in whole.items() if row != "unsteered"}
    found: dict[str, object] = {"changed": changed}
    if not scored.answers:
        return found
    names = list(scored.answers)
    shares = {row: _shares(scored, parts, len(names)) for row, parts in whole.items()}
    gold = np.bincount(scored.gold[scored.on("test")], minlength=len(names))
    constant = {row: names[int(np.argmax(own))] for row, own in shares.items()
                if max(own) >= NEARLY_ALL}  # fmt: skip
    return found | {
        "names": names,
        "gold": (gold / gold.sum()).tolist(),
        "shares": shares,
        "constant": constant,
    }


def _overflows(scored: Scored, parts: Sequence[Part]) -> bool:
    both = [*parts, *unsteered(parts)]
    return any(scored.n_nonfinite(part.cell, part.on) for part in both)


def _changed(scored: Scored, parts: Sequence[Part]) -> float:
    differs = [
        part.share * (scored.chosen(part.cell)[part.on] != scored.chosen(0)[part.on]).sum()
        for part in parts
    ]
    return float(sum(differs) / _mass(parts))


def _shares(scored: Scored, parts: Sequence[Part], n_answers: int) -> list[float]:
    counts = [
        part.share * np.bincount(scored.chosen(part.cell)[part.on], minlength=n_answers)
        for part in parts
    ]
    return (np.sum(counts, axis=0) / _mass(parts)).tolist()


def _mass(parts: Sequence[Part]) -> float:
    return sum(part.share * len(part.on) for part in parts)
