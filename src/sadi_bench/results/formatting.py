"""Lay rows of cells out as text, and write numbers the way every table here writes them."""

import unicodedata
from collections.abc import Mapping, Sequence

MAX_WIDTH = 100
MISSING = "–"
METRIC_NAMES = {
    **{"true_x_info": "true × info"},
    **{"ffn_sparsity": "FFN units switched off", "gate_open": "layers whose gate was open"},
    **{"mc1": "MC1", "mc2": "MC2", "mc3": "MC3"},
}

FRACTIONS = ("auc", "auc_pooled")
"""Metrics that are printed as a fraction."""


def aligned(rows: Sequence[Sequence[str]], n_text_columns: int = 1) -> list[str]:
    """Return one line a row: columns of text flush left, the numbers after them flush right."""
    widths = [max(map(columns, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        gaps = [" " * (width - columns(cell)) for cell, width in zip(row, widths, strict=True)]
        padded = [
            cell + gap if i < n_text_columns else gap + cell
            for i, (cell, gap) in enumerate(zip(row, gaps, strict=True))
        ]
        lines.append("  ".join(padded))
    return lines


def fitted(rows: Sequence[Sequence[str]], may_give_way: Sequence[int]) -> list[list[str]]:
    """Shorten the widest of the columns that may give way, until a line has at most 100 columns.

    The first row is the header, which no column becomes narrower than.
    """
    widths = [max(map(columns, column)) for column in zip(*rows, strict=True)]
    while sum(widths) + 2 * (len(widths) - 1) > MAX_WIDTH:
        widest = max(may_give_way, key=lambda i: widths[i])
        if widths[widest] <= len(rows[0][widest]):
            break
        widths[widest] -= 1
    return [
        [shortened(cell, widths[i]) if i in may_give_way else cell for i, cell in enumerate(row)]
        for row in rows
    ]


def columns(text: str) -> int:
    """Count the columns that a text takes in a terminal: Chinese and its like take two each."""
    return sum(map(_columns, text))


def _columns(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def shortened(text: str, width: int, from_end: bool = False) -> str:
    """Put a text on one line of at most `width` columns; `…` stands for what is left out.

    The start is kept, or, `from_end`, the end. White space becomes one space, and so does what a
    terminal would obey instead of printing.
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if columns(line) <= width:
        return line
    kept, used = "", 1
    for letter in reversed(line) if from_end else line:
        used += _columns(letter)
        if used > width:
            break
        kept += letter
    return "…" + kept[::-1] if from_end else kept + "…"


def side_by_side(*blocks: Sequence[str], gap: str = "   ") -> list[str]:
    """Join blocks of equally many lines, each padded to its own width."""
    widths = [max(map(len, block)) for block in blocks]
    return [
        gap.join(line.ljust(width) for line, width in zip(row, widths, strict=True)).rstrip()
        for row in zip(*blocks, strict=True)
    ]


def markdown(rows: Sequence[Sequence[str]], n_text_columns: int) -> str:
    """Return a Markdown table: the first row is the header, numbers stand to the right."""
    header, *body = rows
    rule = ["---" if i < n_text_columns else "---:" for i in range(len(header))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *body)) + "\n"


def metric_name(metric: str) -> str:
    """Return how a metric is called in print."""
    return METRIC_NAMES.get(metric, metric)


def percent(fraction: float | None) -> str:
    """Write a fraction as a percentage with one decimal and no sign for it."""
    return MISSING if fraction is None else f"{100 * fraction:.1f}"


def percent_interval(interval: Sequence[float] | None) -> str:
    """Write an interval of fractions as percentages."""
    return MISSING if interval is None else f"[{percent(interval[0])}, {percent(interval[1])}]"


def score(metric: str, value: float | None) -> str:
    """Write a metric's value: an AUC as a fraction, everything else in percent."""
    if metric in FRACTIONS:
        return MISSING if value is None else f"{value:.3f}"
    return percent(value)


def score_interval(metric: str, interval: Sequence[float] | None) -> str:
    """Write a metric's interval as `score` writes its value."""
    if interval is None:
        return MISSING
    return f"[{score(metric, interval[0])}, {score(metric, interval[1])}]"


def score_difference(metric: str, difference: float) -> str:
    """Write a difference with its sign: points of a percentage, or a fraction of an AUC."""
    return f"{difference:+.3f}" if metric in FRACTIONS else f"{100 * difference:+.1f}"


def unit(metric: str) -> str:
    """Return what stands behind a metric's name in a header."""
    return "" if metric in FRACTIONS else " %"


def p_value(value: float | None) -> str:
    """Write a p-value with three decimals."""
    if value is None:
        return MISSING
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def seeds(config: Mapping[str, object]) -> str:
    """Write a run's seed, and its method's where that is another."""
    run, method = config["seed"], config["method"].get("seed")
    return str(run) if method in (None, run) else f"{run} (method {method})"


def parameters(params: dict[str, object]) -> str:
    """Write hyper-parameters as one would type them."""
    return ", ".join(f"{name}={value}" for name, value in params.items())
