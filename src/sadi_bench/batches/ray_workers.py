"""Ray workers: actors that load the model once, take batches and return their arrays.

leader    plan ─ batch 4 ─► worker 1 (GPU 0, or its share of the cores)
               ─ batch 5 ─► worker 2 (GPU 1)        a worker that dies is replaced, and its batch
          shards ◄─ arrays ─┘                       is given out again
"""

import logging
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from sadi_bench.batches.executor import Keep, Workers
from sadi_bench.batches.job import Arrays, Job, fitted
from sadi_bench.batches.stopping import finishing_first
from sadi_bench.errors import SettingError

if TYPE_CHECKING:
    from sadi_bench.models.language_model import LanguageModel

log = logging.getLogger("sadi_bench")
Load = Callable[[Any], "LanguageModel"]
MOST_DEATHS = 3
"""A batch on which so many workers died in turn is not tried again."""


class Worker:
    """Hold a model of its own in a process of its own."""

    def __init__(self, load: Load, spec: Any, threads: int) -> None:
        """Load the model; on a CPU it uses `threads` threads."""
        torch.set_num_threads(threads)
        self.lm = load(spec)
        self.known: list[Any] = []

    def run(self, asked: list[Any], number: int) -> tuple[Arrays, int]:
        """Do a batch of a job; `asked` holds the reference to it, which is followed once."""
        if asked != self.known:
            import ray

            self.job, self.known, self.halvings = ray.get(asked[0]), asked, 0
        batch = self.job.batches[number]
        arrays, self.halvings = fitted(self.job, self.lm, batch, self.halvings)
        return arrays, self.halvings


class RayWorkers(Workers):
    """Compute batches in `count` actors of a Ray cluster, each with the model that is asked for.

    `load` makes a model of a `LanguageModel`'s `spec`. The workers start with the first job and
    stay for the next.
    """

    def __init__(self, count: int, load: Load, address: str | None = None) -> None:
        """Say how many workers, and of which cluster; None starts Ray on this machine."""
        self.count, self.load, self.address = count, load, address
        self.actors: list[Any] = []
        self._spec: Any = None
        self._threads = 1

    def compute(
        self, job: Job, lm: "LanguageModel", todo: Sequence[int], keep: Keep
    ) -> Iterator[Arrays]:
        """Yield the arrays of the batches `todo`, in that order; each is kept when it is done.

        Raises:
            SettingError: Ray is not there or has no room, or one batch killed several workers.
        """
        if not todo:
            return
        ray = self._start(lm)
        under_way, ready = _UnderWay(ray, self, job, deque(todo)), {}

        def collect() -> None:
            for number, arrays, halvings in under_way.finished():
                keep(number, arrays, halvings)
                ready[number] = arrays

        try:
            for number in todo:
                while number not in ready:
                    under_way.hand_out()
                    with finishing_first():
                        collect()
                yield ready.pop(number)
        except KeyboardInterrupt:
            while under_way.running:  # nothing new is handed out; a second Ctrl-C ends this too
                collect()
            raise

    def close(self) -> None:
        """Stop the workers."""
        import ray

        for worker in self.actors:
            ray.kill(worker)
        self.actors, self._spec = [], None

    def new_actor(self) -> Any:
        """Start a worker; it waits for room in the cluster."""
        import ray

        gpus = 1 if torch.device(self._spec.device).type == "cuda" else 0
        options = {"num_cpus": self._threads, "num_gpus": gpus, "max_restarts": 0}
        return ray.remote(Worker).options(**options).remote(self.load, self._spec, self._threads)

    def _start(self, lm: "LanguageModel") -> Any:
        """Connect to Ray, and have workers that hold this model."""
        ray = _ray(self.count)
        if not ray.is_initialized():
            _connect(ray, self.address)
        if lm.spec is None:
            raise SettingError(
                f"workers={self.count}: a model that was made by hand cannot be loaded again in "
                "another process; set workers=1."
            )
        if lm.spec != self._spec:
            self.close()
            self._spec = lm.spec
            self._threads = self._share(ray.cluster_resources())
            self.actors = [self.new_actor() for _ in range(self.count)]
        return ray

    def _share(self, there: dict[str, float]) -> int:
        """Return the cores that each worker gets; refuse more workers than there is room for."""
        unit = "GPU" if torch.device(self._spec.device).type == "cuda" else "CPU"
        room = int(there.get(unit, 0))
        if room < self.count:
            raise SettingError(
                f"workers={self.count}: the Ray cluster has {room} {unit}s, and each worker needs "
                f"one; choose at most {max(room, 1)}."
            )
        return max(1, int(there.get("CPU", 1)) // self.count)


class _UnderWay:
    """Follow one job: what waits, and which worker does which batch."""

    def __init__(self, ray: Any, pool: RayWorkers, job: Job, waiting: deque[int]) -> None:
        self.ray, self.pool, self.waiting = ray, pool, waiting
        self.asked = [ray.put(job)]  # in a list Ray leaves it alone; bare, every call would read it
        self.running: dict[Any, tuple[int, Any]] = {}
        self.deaths: Counter[int] = Counter()
        self.idle = list(pool.actors)

    def hand_out(self) -> None:
        """Give every worker that is free a batch."""
        while self.idle and self.waiting:
            number, actor = self.waiting.popleft(), self.idle.pop()
            self.running[actor.run.remote(self.asked, number)] = number, actor

    def finished(self) -> Iterator[tuple[int, Arrays, int]]:
        """Wait a second at most; yield the batches that are done."""
        done, _ = self.ray.wait(list(self.running), timeout=1)
        for ref in done:
            number, actor = self.running.pop(ref)
            try:
                arrays, halvings = self.ray.get(ref)
            except self.ray.exceptions.RayActorError as error:
                self._replace(number, actor, error)
            except self.ray.exceptions.RayTaskError as error:
                raise error.cause from error
            else:
                self.idle.append(actor)
                yield number, arrays, halvings

    def _replace(self, number: int, actor: Any, error: Exception) -> None:
        """Put a new worker in the place of one that died, and its batch back in front."""
        self.deaths[number] += 1
        reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), "")
        if self.deaths[number] == MOST_DEATHS:
            raise SettingError(
                f"workers={self.pool.count}: {MOST_DEATHS} workers died in turn on batch {number} "
                f"({reason.strip()[:200]}); choose fewer workers, or a smaller token_budget."
            )
        log.warning("a worker died on batch %d; another takes its place", number)
        self.pool.actors.remove(actor)
        self.pool.actors.append(self.pool.new_actor())
        self.waiting.appendleft(number)
        self.idle.append(self.pool.actors[-1])


def _ray(count: int) -> Any:
    try:
        import ray
    except ImportError as error:
        raise SettingError(
            f"workers={count}: Ray is not installed; pip install 'sadi-bench[ray]', or set "
            "workers=1."
        ) from error
    return ray


def _connect(ray: Any, address: str | None) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would ask a server on the internet
    here = {"include_dashboard": False} if address is None else {}
    answered = signal.getsignal(signal.SIGTERM)  # Ray answers it with an exit at once
    try:
        ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **here)
    except (ConnectionError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise SettingError(
            f"ray.address={address}: no Ray cluster answers there ({reason}); "
            "start one with `ray start --head`, or leave ray.address out."
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, answered)
