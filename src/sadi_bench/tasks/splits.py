"""Draw three disjoint splits, seeded, from the rows to identify on and the rows to test on."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sadi_bench.errors import SettingError
from sadi_bench.tasks.recipe import Doc
from sadi_bench.tasks.spec import AS_THE_PAPER, TaskSpec

# Fewer rows than this tell cells apart too poorly to leave the paper's number of pairs alone.
ENOUGH_TO_SELECT = 100
MOST_TO_SELECT = 500  # scoring them takes as long as scoring so many test rows, for every cell


@dataclass(frozen=True)
class Splits:
    """The documents of each split, in the order of their pool; `select` is None in the paper's."""

    identify: list[Doc]
    select: list[Doc] | None
    test: list[Doc]
    notes: list[str]


def draw_splits(
    spec: TaskSpec, identify: list[Doc], test: list[Doc], *, protocol: str, seed: int
) -> Splits:
    """Draw the splits of `protocol`: `heldout`, or the paper's (no select split)."""
    for setting, size in _sizes(spec).items():
        if size is not None and size < 1:
            raise SettingError(f"{setting}={size}: choose at least 1, or null for the default.")
    test = _first_rows_per(spec.test_rows_per, test)
    if protocol in AS_THE_PAPER:
        pairs, notes = _paper_pairs(spec, identify, test, protocol, seed)
        select = None
    else:
        pairs, select, notes = _heldout_pairs(spec, identify, test, seed)
    test = _sample(spec, test, seed)
    if protocol not in AS_THE_PAPER:
        _check_disjoint(spec, pairs, select, test)
    return Splits(pairs, select, test, notes)


def carve(
    spec: TaskSpec, identify: list[Doc], test: list[Doc]
) -> tuple[list[Doc], list[Doc], list[str]]:
    """Take rows to identify on from the test rows: what the defaults need, at most half.

    The cut does not depend on the run's seed or sizes, so no test row of one run is ever
    identified on in another.
    """
    wanted = len(test) // 2
    if spec.paper_pairs:
        wanted = min(wanted, spec.paper_pairs + MOST_TO_SELECT - len(identify))
    taken: set[int] = set()
    for group in _by_group(test, "carve"):
        if len(taken) >= wanted:
            break
        taken.update(doc.doc_id for doc in group)
    kept = [doc for doc in test if doc.doc_id not in taken]
    moved = [doc for doc in test if doc.doc_id in taken]
    note = (
        f"one pool of {len(identify) + len(test):,} rows is split disjointly: "
        f"{len(identify) + len(moved):,} to identify and select on, {len(kept):,} to test on"
    )
    return identify + moved, kept, [note]


def _sizes(spec: TaskSpec) -> dict[str, int | None]:
    return {
        "task.n_pairs": spec.n_pairs,
        "task.n_select": spec.n_select,
        "task.n_test": spec.n_test,
    }


def _rank(seed: object, key: object) -> str:
    """Return a key whose order is random but the same on every platform, whatever else is there."""
    return hashlib.sha256(f"{seed}/{key}".encode()).hexdigest()


def _by_group(docs: Iterable[Doc], seed: object) -> list[list[Doc]]:
    groups: dict[str, list[Doc]] = {}
    for doc in docs:
        groups.setdefault(doc.group, []).append(doc)
    return [groups[key] for key in sorted(groups, key=lambda key: _rank(seed, key))]


def _in_pool_order(docs: Iterable[Doc]) -> list[Doc]:
    return sorted(docs, key=lambda doc: doc.doc_id)


def _first_rows_per(caps: dict[str, int], docs: list[Doc]) -> list[Doc]:
    for column, most in caps.items():
        seen: Counter = Counter()
        kept = []
        for doc in docs:
            seen[doc.row[column]] += 1
            if seen[doc.row[column]] <= most:
                kept.append(doc)
        docs = kept
    return docs


def _sample(spec: TaskSpec, test: list[Doc], seed: int) -> list[Doc]:
    """Take `n_test` rows; a smaller sample is part of a larger one."""
    _at_most(spec, "task.n_test", spec.n_test, len(test), f"{len(test):,} test rows")
    ranked = sorted(test, key=lambda doc: _rank(f"{seed}/test", doc.doc_id))
    return _in_pool_order(ranked[: spec.n_test])


def _at_most(spec: TaskSpec, setting: str, size: int | None, most: int, has: str) -> None:
    if size is not None and size > most:
        remedy = f"choose at most {most:,}" if most > 0 else "choose smaller task.n_* sizes"
        raise SettingError(f"{setting}={size}: {spec.name} has {has}; {remedy}.")


def _without_repeats(identify: list[Doc], test: list[Doc]) -> tuple[list[Doc], list[str]]:
    """Drop rows whose prompt is also tested on, or was in an earlier row."""
    tested, seen = {doc.prompt for doc in test}, set()
    kept, in_test = [], 0
    for doc in identify:
        in_test += doc.prompt in tested
        if doc.prompt not in tested and doc.prompt not in seen:
            kept.append(doc)
        seen.add(doc.prompt)
    notes = []
    if dropped := len(identify) - len(kept):
        notes.append(
            f"{dropped:,} of {len(identify):,} rows to identify on dropped: the same prompt is "
            f"tested on ({in_test:,}) or came before ({dropped - in_test:,})"
        )
    return kept, notes


def _heldout_pairs(
    spec: TaskSpec, identify: list[Doc], test: list[Doc], seed: int
) -> tuple[list[Doc], list[Doc], list[str]]:
    """Draw pairs from the front and select rows from the back of one seeded order of groups."""
    pool, notes = _without_repeats(identify, test)
    n_pairs, default_note = _number_of_pairs(spec, len(pool))
    order = [doc for group in _by_group(pool, f"{seed}/identify") for doc in group]
    pairs = order[:n_pairs]
    used = {doc.group for doc in pairs}
    rest = [doc for doc in reversed(order) if doc.group not in used]
    n_select = spec.n_select or min(len(rest), MOST_TO_SELECT)
    left = f"{len(rest):,} rows left to select on beside {n_pairs:,} pairs"
    _at_most(spec, "task.n_select", spec.n_select, len(rest), left)
    if not rest:
        raise SettingError(
            f"task.n_pairs={n_pairs}: {spec.name} has {left}; choose fewer pairs, or protocol="
            "paper, which selects nothing."
        )
    return _in_pool_order(pairs), _in_pool_order(rest[:n_select]), notes + default_note


def _number_of_pairs(spec: TaskSpec, pool: int) -> tuple[int, list[str]]:
    select = spec.n_select or 1
    if spec.n_pairs is not None:
        if select >= max(pool, spec.n_pairs):  # the larger of two sizes is to blame
            left = f"{pool:,} rows to identify on, {spec.n_pairs:,} of them for pairs"
            _at_most(spec, "task.n_select", select, pool - spec.n_pairs, left)
        has = f"{pool:,} rows to identify on and keeps {select:,} of them to select on"
        _at_most(spec, "task.n_pairs", spec.n_pairs, max(pool - select, 0), has)
        return spec.n_pairs, []
    if spec.paper_pairs and pool - spec.paper_pairs >= (spec.n_select or ENOUGH_TO_SELECT):
        return spec.paper_pairs, []
    _at_most(spec, "task.n_select", spec.n_select, pool - 1, f"{pool:,} rows to identify on")
    n_pairs = max(1, min(round(pool * 2 / 3), pool - select))
    paper = f" (the paper: {spec.paper_pairs:,} pairs)" if spec.paper_pairs else ""
    return n_pairs, [f"{n_pairs:,} of {pool:,} rows to identify on make pairs{paper}"]


def _paper_pairs(
    spec: TaskSpec, identify: list[Doc], test: list[Doc], protocol: str, seed: int
) -> tuple[list[Doc], list[str]]:
    """Take the paper's rows as they are: repeats stay, and nothing is held out to select on."""
    notes = [f"protocol={protocol}: no rows to select on, so only the oracle can be reported"]
    if spec.paper_identifies_on_test:
        notes.append(f"protocol={protocol}: pairs are made of the test rows themselves")
    pool = test if spec.paper_identifies_on_test else identify
    _at_most(spec, "task.n_pairs", spec.n_pairs, len(pool), f"{len(pool):,} rows to identify on")
    n_pairs = spec.n_pairs or min(spec.paper_pairs or len(pool), len(pool))
    order = [doc for group in _by_group(pool, f"{seed}/identify") for doc in group]
    pairs = _in_pool_order(order[:n_pairs])
    shared = len({doc.prompt for doc in pairs} & {doc.prompt for doc in test})
    if shared and not spec.paper_identifies_on_test:
        notes.append(f"protocol={protocol}: prompts of the pairs also tested on: {shared:,}")
    return pairs, notes


def _check_disjoint(spec: TaskSpec, *splits: Sequence[Doc] | None) -> None:
    """Refuse to go on with a prompt in two splits, or a group in both pairs and select."""
    seen: set[str] = set()
    for docs in splits:
        prompts = {doc.prompt for doc in docs or ()}
        if both := seen & prompts:
            raise SettingError(
                f"task={spec.name}: {len(both):,} prompts are in two splits; their rows are not "
                "disjoint, so nothing was run."
            )
        seen |= prompts
