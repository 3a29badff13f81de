"""Which metric chooses the cell of a run."""

from sadi_bench.errors import SettingError
from sadi_bench.results.paper import paper_metric
from sadi_bench.scoring.frame import metrics_of
from sadi_bench.settings import RunConfig
from sadi_bench.tasks.spec import RELEASED
from sadi_bench.tasks.task import PAPER_MATCH, Task

PAPER = "paper"


def selecting_metric(config: RunConfig, task: Task) -> str:
    """Return the metric that chooses the cell: the one asked for, else the task's first.

    `paper` is the metric that arXiv 2410.12299 prints, which the released procedure always takes.

    Raises:
        SettingError: it is no metric of this task, or not one number a document.
    """
    select_by = config.select_by
    measured = [metric for metric in metrics_of(task) if metric in task.metrics]
    if config.protocol == RELEASED and select_by not in (None, PAPER):
        raise SettingError(
            f"select_by={select_by}: protocol=released chooses by the paper's metric; choose "
            "select_by=paper or null, or protocol=paper."
        )
    if select_by == PAPER or config.protocol == RELEASED:
        return paper_metric(measured)
    if select_by is None:
        return "acc" if "acc" in measured else measured[0]
    allowed = [*measured, *_metrics_of_log_odds(task)]
    if select_by not in allowed:
        raise SettingError(
            f"select_by={select_by}: a cell of task={task.name} can be chosen by "
            f"{', '.join(allowed)}; choose one of them, or null for the first."
        )
    return select_by


def _metrics_of_log_odds(task: Task) -> list[str]:
    """Name what the answers' log-probabilities tell beyond lm-eval's metrics.

    A constant an answer, and so acc_biased, needs the same answers in every document, and a select
    split to fit it on.
    """
    if PAPER_MATCH not in task.metrics:  # its answers are written, or scored in a way of its own
        return []
    if task.answers is None:
        return ["auc_pooled"]
    return ["auc", *(["acc_biased"] if task.select is not None else [])]
