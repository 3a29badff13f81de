"""Show a finished run: its table, or its test documents one by one."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sadi_bench.errors import SettingError, unknown_name
from sadi_bench.results.flips import Flips, flips_of
from sadi_bench.results.formatting import MAX_WIDTH, MISSING, aligned, metric_name, shortened
from sadi_bench.results.grid import UNSTEERED
from sadi_bench.results.notes import wrapped
from sadi_bench.results.paper.table_runs import named_result
from sadi_bench.results.reading import Run, check_run, load_run
from sadi_bench.results.run_facts import ROWS, choice_words
from sadi_bench.results.scored import ANSWERS
from sadi_bench.results.tables import method_name, run_table

WHICH = ("all", "flipped")
LABEL = 14  # columns of what stands in front of a text
LONGEST_ANSWER = 60
NO_TEXTS = (
    "docs.jsonl has no texts, since an older version wrote it: {} missing. force=true computes the "
    "run again."
)


@dataclass(frozen=True)
class Shown:
    """Hold a run as it is shown: the cells side by side, and rows by (document, cell).

    `cells` are the unsteered one and, where the run steers, the chosen one.
    """

    run: Run
    cells: tuple[int, ...]
    docs: Mapping[int, Mapping[str, object]]
    rows: Mapping[tuple[int, int], Mapping[str, object]]
    texts: Mapping[tuple[int, int], Mapping[str, object]]


def shown_run(path: str | os.PathLike) -> str:
    """Return a finished run's table, as the run printed it.

    Raises:
        SettingError: there is no finished run, or a file of it is damaged or edited.
    """
    check_run(path)
    return run_table(named_result(Path(path)), path)


def shown_docs(path: str | os.PathLike, which: str = "flipped", limit: int = 10) -> str:
    """Return test documents before and after steering as text, at most 100 columns wide.

    `which`: flipped, those that the chosen cell turned right or wrong; all. At most `limit` are
    shown; the counts are of all.

    Raises:
        SettingError: there is no finished run, it steers nothing (flipped), or a value is unknown.
    """
    if which not in WHICH:
        raise unknown_name("docs", which, WHICH)
    if limit < 1:
        raise SettingError(f"limit={limit}: choose at least 1 document.")
    run = load_run(path)
    steers = any(run.result["sadi_bench"]["protocols"].get(row) for row in ("heldout", "oracle"))
    flips = flips_of(run) if steers or which == "flipped" else None
    shown = _shown(run, (UNSTEERED,) if flips is None else (UNSTEERED, flips.cell))
    lines = wrapped(_title(run, flips)) + _counts(run, flips) + _missing_texts(shown)
    turned = dict(zip(flips.doc_ids.tolist(), _turns(flips), strict=True)) if flips else {}
    names = [doc for doc in shown.docs if which == "all" or turned[doc][0]]
    for doc in names[:limit]:
        lines += ["", f"document {doc}{turned[doc][1] if doc in turned else ''}"]
        lines += _document(shown, doc)
    if len(names) > limit:
        lines += ["", f"{limit} of {len(names)} documents are shown; limit=… shows more."]
    return "\n".join(lines) + "\n"


def _shown(run: Run, cells: tuple[int, ...]) -> Shown:
    grid = run.rows("test", cells)
    rows = {(row["doc_id"], row["cell"]): row for row in grid.to_dict("records")}
    known = {doc["doc_id"]: doc for doc in run.docs if doc["split"] == "test"}
    docs = {doc: known.get(doc, {}) for doc in dict.fromkeys(grid["doc_id"].tolist())}
    texts = {(text["doc_id"], text["cell"]): text for text in run.texts if text["split"] == "test"}
    return Shown(run, cells, docs, rows, texts)


def _title(run: Run, flips: Flips | None) -> str:
    ours = run.result["sadi_bench"]
    title = f"{ours['task']}, {ours['model']}, {method_name(ours)}: before, the unsteered model"
    if flips is None:
        return f"{title}; the run steers nothing."
    row = ours["protocols"][flips.row]
    several = f" of the first of {len(row['cells'])} draws" if len(row["cells"]) > 1 else ""
    words = f"cell {flips.cell}" if several else choice_words(row)
    title += f"; after, the {ROWS[flips.row]}{several} ({words})."
    if flips.row == "oracle":
        title += " There is no held-out cell: this one was chosen on these very documents."
    return title


def _counts(run: Run, flips: Flips | None) -> list[str]:
    """Count what steering turned, and name the metric that says so."""
    if flips is None:
        return []
    better, worse = ((flips.gains == sign).sum() for sign in (1, -1))
    turns = ("turned right", "turned wrong")
    if not flips.is_right_or_wrong:
        turns = ("became better", "became worse")
    counted = f"{better} of {len(flips.gains)} {turns[0]}, {worse} {turns[1]}"
    chosen_by = run.result["sadi_bench"]["protocols"]["metric"]
    other = f"; {metric_name(chosen_by)}, which chose the cell, is no number a document"
    return wrapped(f"{counted} ({metric_name(flips.metric)}{other * (chosen_by != flips.metric)})")


def _turns(flips: Flips) -> list[tuple[int, str]]:
    """Return each document's gain, and what its heading says of its score."""
    words = ("wrong", "right")
    found = []
    for gain, *scores in zip(flips.gains, flips.before, flips.after, strict=True):
        if flips.is_right_or_wrong:
            before, after = (words[int(score)] for score in scores)
        else:
            before, after = (f"{score:.3f}" for score in scores)
            before = f"{metric_name(flips.metric)} {before}"
        found.append((int(gain), f": {before} → {after}"))
    return found


def _missing_texts(shown: Shown) -> list[str]:
    """Say which texts a run of an older version does not have."""
    doc = next(iter(shown.docs), None)
    if doc is None or "prompt" in shown.docs[doc]:
        return []
    prompt = (doc, UNSTEERED) in shown.texts
    named = shown.run.columns.attrs.get(ANSWERS) or "choice_logprobs" not in shown.run.columns
    lacking = [*([] if prompt else ["prompts"]), *([] if named else ["answers"])]
    return wrapped(NO_TEXTS.format(f"{' and '.join(lacking)} are")) if lacking else []


def _document(shown: Shown, doc: int) -> list[str]:
    """Return one document's lines: prompt, answers, what the model says in each cell."""
    known = shown.docs[doc]
    texts = [shown.texts.get((doc, cell)) for cell in shown.cells]
    prompt = known.get("prompt") or (texts[0] or {}).get("context")
    lines = [] if prompt is None else [_line("prompt", str(prompt), from_end=True)]
    rows = [shown.rows[doc, cell] for cell in shown.cells]
    if "choice_logprobs" in rows[0]:
        lines += _answers(_choices(shown, doc), rows)
    elif known.get("choices"):
        lines.append(_line("right", str(known["choices"][int(known.get("gold") or 0)])))
    if isinstance(rows[0].get("predicted"), str):
        # In quotes: white space decides whether the paper's exact match takes it for an answer.
        said = [json.dumps(row["predicted"], ensure_ascii=False) for row in rows]
        lines.append(_line("predicted", " → ".join(said)))
    for when, text in zip(("before", "after"), texts, strict=False):
        if text is not None:
            lines.append(_line(f"text {when}", str(text["text"]) or "(nothing)"))
    return lines


def _choices(shown: Shown, doc: int) -> Sequence[str]:
    """Name a document's answers: by their texts, or where no file has them by number."""
    known = shown.docs[doc].get("choices") or shown.run.columns.attrs.get(ANSWERS)
    count = len(shown.rows[doc, UNSTEERED]["choice_logprobs"])
    return known or [f"answer {number}" for number in range(count)]


def _answers(choices: Sequence[str], rows: Sequence[Mapping[str, object]]) -> list[str]:
    """Lay the answers out with their log-probabilities; `*` marks the right one."""
    header = ["", "answers, * right", *("before", "after")[: len(rows)]]
    table = [header]
    for number, choice in enumerate(choices):
        mark = "*" if number == rows[0]["gold"] else ""
        values = [_logprob(row["choice_logprobs"][number]) for row in rows]
        table.append([mark, shortened(str(choice), LONGEST_ANSWER), *values])
    return [f"  {line}".rstrip() for line in aligned(table, n_text_columns=2)]


def _logprob(value: float) -> str:
    return MISSING if pd.isna(value) else f"{value:.3f}"


def _line(label: str, text: str, from_end: bool = False) -> str:
    start = f"  {label:<{LABEL}}"
    return start + shortened(text, MAX_WIDTH - len(start), from_end)
