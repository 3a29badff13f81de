"""What a plan assumes, and what it leaves out."""

from collections.abc import Iterator

from sadi_bench.planning.calibrating import Trial
from sadi_bench.settings import RunConfig
from sadi_bench.steering.activations import PairJob
from sadi_bench.steering.intervention import AnswerBias


def notes_of(config: RunConfig, trial: Trial, missing: str) -> tuple[str, ...]:
    """Say it in a sentence each; `missing` is why no pass was timed here."""
    return tuple(_notes(config, trial, missing))


def _notes(config: RunConfig, trial: Trial, missing: str) -> Iterator[str]:
    pairs = [len(job.pairs) for job in trial.jobs if isinstance(job, PairJob)]
    if missing:
        yield f"no time for this machine: {missing}"
    if pairs and not isinstance(trial.steering, AnswerBias):
        told = "drawn by lot" if missing else f"as a fit on {max(pairs)} pairs has them"
        yield f"which layers the cells edit is learnt; here they are {told}"
    if config.task.generation_kwargs:
        yield "texts are counted at their full length; most end earlier"
    if config.method.get("guide"):
        yield f"the guide {config.method['guide']} is taken to cost what the model does"
    if config.finetune.kind != "none":
        yield "a step of fine-tuning is taken to cost three forward passes"
    if config.judge.kind != "none":
        yield f"judge={config.judge.kind} is not counted"
    if config.workers > 1:
        yield f"times are of one process; workers={config.workers} share the passes"
