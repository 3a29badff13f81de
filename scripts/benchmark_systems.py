"""Four ways to evaluate steering, on the same documents and model; each measured alone."""

import resource
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, redirect_stderr
from dataclasses import dataclass, replace
from io import StringIO
from typing import Any

import torch
from torch import Tensor

from sadi_bench.composing import composed

SYSTEMS = {
    "a": "lm-eval's `hf` model, unsteered",
    "b": "released procedure: two passes a document, one at a time, for one cell",
    "c": "lm-eval's `hf` model under hooks, for one cell",
    "d": "sadi-bench, the whole grid",
}
GRIDS = {
    12: ([2, 6], [5, 10, 20, 35, 50, 80]),
    96: ([1, 2, 4, 6, 8, 10], list(range(5, 85, 5))),  # the paper's, for heads
    176: ([1, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20], list(range(5, 85, 5))),
}
BATCH = 16  # of 8, 16 and 32 the fastest for lm-eval on 2 cores


@dataclass(frozen=True)
class Job:
    """Name one measurement. `stretch`: prompts of about so many times their length."""

    system: str
    task: str
    overrides: tuple[str, ...]
    docs: int
    sample: int
    cells: int
    stretch: int


@dataclass(frozen=True)
class Measured:
    """Hold what one process measured; `seconds` are for all docs, loading left out."""

    seconds: float
    peak_bytes: int
    prompt_tokens: float
    facts: dict[str, Any]


class _Bench:
    """Load a job's task, model and intervention."""

    def __init__(self, job: Job) -> None:
        from sadi_bench.models.loading import load_language_model, resolved
        from sadi_bench.steering.contrast import encode_pairs
        from sadi_bench.steering.methods import method_of
        from sadi_bench.tasks.pairs import contrastive_pairs
        from sadi_bench.tasks.spec import TrailingNewline
        from sadi_bench.tasks.task import load_task

        top_k, strength = GRIDS[job.cells]
        chosen = {"task": job.task, "model": "smollm2-135m", "method": "sadi-head"}
        config = composed(
            *(f"{group}={name}" for group, name in chosen.items()),
            *(f"task.n_test={job.docs}", "task.n_select=4", "task.n_pairs=100"),
            *(f"task.fewshot={job.stretch - 1}",),
            *(f"method.top_k={top_k}", f"method.strength={strength}", *job.overrides),
        )
        task = load_task(config.task, protocol=config.protocol, seed=config.seed)
        self.job, self.task = job, replace(task, select=None)
        self.lm = load_language_model(resolved(config.model))
        self.keep_newline = task.spec.trailing_newline == TrailingNewline.prompt
        if job.system != "a":  # the plain evaluation reads no pairs: its memory must not show them
            pairs = contrastive_pairs(task, seed=config.seed)
            encoded, _ = encode_pairs(self.lm, pairs, self.keep_newline)
            self.intervention = method_of(config.method).fit(self.lm, encoded)
            self.cell = len(self.intervention.cells) // 2
        self.position = 0  # of the last prompt token, where (b) steers

    def requests(self) -> list[list[tuple[tuple[int, ...], tuple[int, ...]]]]:
        """Tokenise every document's prompt with each of its choices."""
        from sadi_bench.scoring.frame import requests_by_doc

        self.task.test.build_all_requests(rank=0, world_size=1)
        found = []
        for asked in requests_by_doc(self.task.test).values():
            pairs = [self.lm.encode_pair(*i.args, self.keep_newline) for i in asked]
            found.append([(pair.prompt, pair.answer) for pair in pairs])
        return found

    def prompt_tokens(self) -> float:
        lengths = [len(asked[0][0]) for asked in self.requests()]
        return sum(lengths) / len(lengths)

    def facts(self) -> dict[str, Any]:
        network = self.lm.network
        return {
            "model": self.lm.name,
            "dtype": str(self.lm.dtype).removeprefix("torch."),
            "device": str(self.lm.device),
            "threads": torch.get_num_threads(),
            "parameters": sum(p.numel() for p in network.parameters()),
        }

    def hooked(self, clean: dict[int, Tensor] | None = None) -> AbstractContextManager[None]:
        """Steer one cell through hooks at the last position, or, as lm-eval does, at all."""
        from sadi_bench.models.hooks import edited

        cells = torch.tensor([self.cell])

        def edit(layer: int, raw: Tensor) -> Tensor | None:
            if clean is None:
                new = self.intervention.edit(layer, raw[:, None], cells)
                return None if new is None else new[:, 0]
            values = clean[layer][None, None, None]
            new = self.intervention.edit(layer, values, cells)
            raw = raw.clone()
            raw[:, self.position] = (values if new is None else new)[:, 0, 0]
            return raw

        return edited(self.lm.network, self.lm.family, self.intervention.site, edit)


def measure(job: Job) -> Measured:
    """Run one system once; call it in a process of its own, whose peak memory is then its own."""
    with redirect_stderr(StringIO()):  # lm-eval draws its bars in any case
        return _measured(_Bench(job))


def _measured(bench: _Bench) -> Measured:
    if bench.lm.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    share = WAYS[bench.job.system](bench)
    if bench.lm.device.type == "cuda":
        torch.cuda.synchronize()
    seconds = (time.perf_counter() - start) / share
    return Measured(seconds, _peak(bench.lm.device.type), bench.prompt_tokens(), bench.facts())


def _plain(bench: _Bench) -> float:
    """(a) Ask lm-eval's own model; returns the share of the documents that was done."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    from sadi_bench.tasks.quiet import quiet_libraries

    model = HFLM(pretrained=bench.lm.network, tokenizer=bench.lm.tokenizer, batch_size=BATCH)
    with quiet_libraries():
        lm_eval.evaluate(
            model,
            {"tasks": {bench.task.name: bench.task.test}, "groups": {}, "group_map": {}},
            log_samples=False,
        )
    return 1.0


def _hooked(bench: _Bench) -> float:
    """(c) The same under hooks. One pass: `patch=clean` would need a second one for its values."""
    with bench.hooked():
        return _plain(bench)


def _released(bench: _Bench) -> float:
    """(b) A clean pass over the prompt, then a steered one over prompt and right answer."""
    from sadi_bench.models.hooks import edited

    lm, rows = bench.lm, bench.task.test.test_docs()
    requests = bench.requests()
    stride = max(1, len(requests) // bench.job.sample)
    done = range(0, len(requests), stride)
    with torch.inference_mode():
        for number in done:
            prompt, answer = requests[number][int(rows[number]["gold_index"])]
            clean: dict[int, Tensor] = {}

            def note(layer: int, raw: Tensor, clean: dict = clean) -> None:
                clean[layer] = raw[0, -1]

            with edited(lm.network, lm.family, bench.intervention.site, note):
                lm.network(torch.tensor([prompt], device=lm.device))
            bench.position = len(prompt) - 1
            with bench.hooked(clean):
                ids = torch.tensor([prompt + answer[:-1]], device=lm.device)
                logits = lm.network(ids).logits[0, bench.position :]
            logits.argmax(dim=-1).tolist()
    return len(done) / len(requests)


def _ours(bench: _Bench) -> float:
    """(d) Every document's metrics in every cell."""
    from sadi_bench.scoring.bridge import SteeredLM
    from sadi_bench.scoring.frame import score_grid

    steered = SteeredLM(bench.lm, bench.intervention, keep_newline=bench.keep_newline)
    for _ in score_grid(bench.task, steered)[0]():
        pass
    return 1.0


WAYS: dict[str, Callable[[_Bench], float]] = {
    "a": _plain, "b": _released, "c": _hooked, "d": _ours,
}  # fmt: skip


def _peak(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
