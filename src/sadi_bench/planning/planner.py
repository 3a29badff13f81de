"""Plan runs one after the other; what was loaded or timed for one serves the next."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from sadi_bench.batches.job import Job
from sadi_bench.experiment import finished_before, settled
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.skeleton import skeleton, weights_here
from sadi_bench.models.spec import ModelSpec
from sadi_bench.planning.asked_jobs import AskedJobs
from sadi_bench.planning.calibrating import FEW_PAIRS, Speed, Trial, middle, speed_of, timed_fit
from sadi_bench.planning.network_size import NetworkSize, network_size, on_gpu
from sadi_bench.planning.plan_notes import notes_of
from sadi_bench.planning.plan_parts import (
    CHOICES,
    LIKELIHOOD,
    PAIRS,
    TEXTS,
    Part,
    jobs_of,
    parts_of,
)
from sadi_bench.planning.room import LIBRARIES, free_memory, room_of
from sadi_bench.planning.run_plan import FINISHED, RunPlan
from sadi_bench.planning.training_cost import training_left
from sadi_bench.scoring.frame import named_splits
from sadi_bench.scoring.generation import TextJob
from sadi_bench.session import Session
from sadi_bench.settings import RunConfig
from sadi_bench.stages import Pairs, pairs_for, task_pairs
from sadi_bench.steering.activations import PairJob, is_kept
from sadi_bench.steering.intervention import AnswerBias
from sadi_bench.steering.method import Method
from sadi_bench.steering.methods import method_of

ROW_SECONDS = 2e-4
"""Of a document in a cell: lm-eval's metrics, and its share of the report. Measured on 2 cores."""

REPORT_SECONDS = 4.0
"""Of a run's report and files, however small. Measured on 2 cores."""


class Planner:
    """Own what the plans of a sweep share: the model, and what was timed with it."""

    def __init__(self, session: Session | None = None) -> None:
        """Start with nothing known."""
        self.session = session or Session()
        self._size: NetworkSize | None = None
        self._lm: LanguageModel | None = None
        self._loading = 0.0
        self._trials: dict[str, Trial] = {}
        self._speeds: dict[str, dict[str, Speed]] = {}

    def plan(self, config: RunConfig) -> RunPlan:
        """Plan one run.

        Raises:
            SettingError: for what the run itself would refuse before it computes.
        """
        started = time.perf_counter()
        run = settled(config, self.session)
        size = self._sized(run.config.model)
        documents = sum(len(split.test_docs()) for split in named_splits(run.task).values())
        found = RunPlan(run, FINISHED, size, on_gpu(size, config.model.dtype), documents)
        if finished_before(run.path, run.config) is not None:
            return found
        method = method_of(_without_guide(run.config.method))
        answers = task_pairs(size.lm, run.task)
        pairs = pairs_for(method, size.lm, run.task, answers)
        reading = time.perf_counter() - started
        training = training_left(run, size, answers.tokens)
        return self._counted(replace(found, training=training), method, pairs, reading)

    def _counted(self, found: RunPlan, method: Method, pairs: Pairs, reading: float) -> RunPlan:
        """Add what a run that is not finished takes; `reading` are the seconds till here."""
        run, size = found.run, found.size
        missing = self._load(run.config.model, size)
        key = f"{size.lm.fingerprint} {method!r}"
        trial = self._trial(key, method, pairs)
        started = time.perf_counter()
        jobs = jobs_of(size.lm, run, pairs, trial)
        reading += time.perf_counter() - started
        parts = parts_of(jobs, run, size, found.gpu_size, self._is_known)
        around = {
            "loading the model": self._loading,
            "reading the data": reading,
            "learning": trial.learning * len(pairs.tokens),
            "metrics and report": REPORT_SECONDS + ROW_SECONDS * sum(_rows(j) for _, _, j in jobs),
        }
        return replace(
            found,
            state="unfinished" if any(part.done for part in parts) else "new",
            cells=len(trial.steering.cells),
            parts=parts,
            speeds=self._timed(key, parts, trial),
            around=around,
            room=room_of(run.config, size, parts, here=not missing),
            notes=notes_of(run.config, trial, missing),
        )

    def _sized(self, spec: ModelSpec) -> NetworkSize:
        """Read a model's sizes; those of the last one are kept."""
        if self._size is None or self._size.lm.spec != spec:
            self._size = network_size(skeleton(spec))
        return self._size

    def _load(self, spec: ModelSpec, size: NetworkSize) -> str:
        """Load the model if it is not; else say why no pass can be timed."""
        if self._lm is not None and self._lm.spec == spec:
            return ""
        self._lm, self._loading = None, 0.0
        self.session.models.clear()
        if not weights_here(spec):
            return "its weights are not here"
        if size.weights_bytes + LIBRARIES > free_memory(spec.device):
            return "its weights do not fit into the memory that is free"
        started = time.perf_counter()
        self._lm = self.session.models.load(spec)
        self._loading = time.perf_counter() - started
        return ""

    def _trial(self, key: str, method: Method, pairs: Pairs) -> Trial:
        """Fit on a few pairs; without weights on what is drawn by lot."""
        if key in self._trials:
            return self._trials[key]
        if self._lm is not None:
            trial = timed_fit(self._lm, self._size, method, pairs.tokens)
        else:
            asked = AskedJobs()
            lm = replace(self._size.lm, fingerprint="", executor=asked)  # nothing is to be kept
            steering = method.fit(lm, middle(pairs.tokens, FEW_PAIRS))
            trial = Trial(steering, tuple(asked.jobs))
        if not isinstance(trial.steering, AnswerBias):  # whose answers are one task's
            self._trials[key] = trial
        return trial

    def _timed(self, key: str, parts: Sequence[Part], trial: Trial) -> Mapping[str, Speed]:
        """Time a kind of passes once a model and method."""
        if self._lm is None:
            return {}
        speeds = self._speeds.setdefault(key, {})
        first = {part.kind: part.job for part in reversed(parts) if part.left.flops}
        if trial.speed:
            speeds[PAIRS] = Speed(trial.speed)
        elif LIKELIHOOD in first and PAIRS not in speeds:
            speeds[PAIRS] = speed_of(self._lm, self._size, first[LIKELIHOOD])
        dense = speeds[PAIRS].flops if PAIRS in speeds else None
        for kind in {CHOICES, TEXTS} & set(first) - set(speeds):
            speeds[kind] = speed_of(self._lm, self._size, first[kind], dense)
        any_speed = next(iter(speeds.values()), Speed(1.0))  # of what nothing is left
        likely = Speed(dense or any_speed.flops, share=speeds.get(TEXTS, any_speed).share)
        return {**dict.fromkeys((PAIRS, CHOICES, TEXTS), any_speed), LIKELIHOOD: likely, **speeds}

    def _is_known(self, job: Job) -> bool:
        lm = self._lm
        return lm is not None and isinstance(job, PairJob) and is_kept(lm, job)


def _without_guide(settings: Mapping) -> dict:
    """Let a model that has a guide guide itself: its passes are as many."""
    return {**settings, "guide": None} if settings.get("guide") else dict(settings)


def _rows(job: Job) -> int:
    """Count the rows of a frame."""
    if isinstance(job, PairJob):
        return 0
    if isinstance(job, TextJob):
        return sum(map(job.size, job.batches))
    return len(job.requests) * len(job.intervention.cells)
