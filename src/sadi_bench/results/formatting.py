"""Lay rows of cells out as text, and write numbers the way every table here writes them."""

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
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = [str.ljust if i < n_text_columns else str.rjust for i in range(len(widths))]
    return [
        "  ".join(pad(text, width) for pad, text, width in zip(sides, row, widths, strict=True))
        for row in rows
    ]


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
