"""The model that lm-eval's command makes of `--model sadi --model_args run=RUN,cell=heldout`."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from lm_eval._cli.utils import handle_cli_value_string
from lm_eval.api.model import CacheHook

from sadi_bench.composing import chosen
from sadi_bench.disk import RUNS
from sadi_bench.errors import SettingError, unknown_key
from sadi_bench.lm_eval_requests import OneCellLM
from sadi_bench.models.loading import load_language_model
from sadi_bench.models.spec import ModelSpec
from sadi_bench.results.reading import Run, load_run
from sadi_bench.results.run_dir import CONFIG
from sadi_bench.run_models import spec_of_run
from sadi_bench.stages import say
from sadi_bench.steering.intervention import Intervention
from sadi_bench.steering.origin import check_model, template_note

log = logging.getLogger("sadi_bench")


@dataclass(frozen=True)
class ModelArguments:
    """Hold what stands behind --model_args, and what lm-eval adds from its other options.

    run: a run's folder, its name in `runs_dir`, or a steering.safetensors file.
    cell: its number, or the row of the run's report that chose it.
    model: a name of configs/model; pretrained: a folder or a hub name. Both are for a model that
    is no longer where the run found it; other weights are refused.
    batch_size and max_batch_size are accepted and not heeded: passes are filled by tokens.
    """

    run: str | int | float | None = None
    cell: str | int | float = "heldout"
    runs_dir: str = RUNS
    model: str | None = None
    pretrained: str | None = None
    dtype: str | None = None
    device: str | None = None
    trust_remote_code: bool = False
    batch_size: int | str | None = None
    max_batch_size: int | None = None


class SadiLM(OneCellLM):
    """Answer lm-eval's requests for one cell of a run; `cell=0` is the run's model unsteered."""

    def __init__(self, **arguments: Any) -> None:
        """Load the steering and its model.

        Raises:
            SettingError: there is no such run or cell, or the model is not the one it was learnt
                from.
        """
        given = _arguments(arguments)
        self.place, run = _found(given)
        steering = run.steering if run else Intervention.load(self.place)
        number = steering.cell_of(str(given.cell))
        lm = load_language_model(_spec(given, run, steering))
        check_model(steering.origin, lm)
        budget = yaml.safe_load(run.config).get("token_budget") if run else None
        super().__init__(lm, steering, number, budget)
        self.origin, self.asked, self.number = steering.origin, str(given.cell), number
        self.params = dict(steering.cells[number].params)
        self.wrapped, self.notes = False, ()
        say(lm.name, lm.notes)

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None
    ) -> "SadiLM":
        """Let --model_args win over lm-eval's other options, instead of failing on both.

        lm-eval says --device cuda:0 unasked; where there is none it means any, as for `hf`.
        """
        more = {k: v for k, v in (additional_config or {}).items() if v is not None}
        if str(more.get("device")).startswith("cuda") and not torch.cuda.is_available():
            del more["device"]
        return cls(**{**more, **arg_dict})

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Return the template; from now on prompts are wrapped in it."""
        self.wrapped = bool(chat_template)
        return super().chat_template(chat_template)

    def loglikelihood(self, *requests: Any, **options: Any) -> list[tuple[float, bool]]:
        """Score, after a word on prompts that are wrapped otherwise than in the run."""
        self._note_template()
        return super().loglikelihood(*requests, **options)

    def generate_until(self, *requests: Any, **options: Any) -> list[str]:
        """Write, after a word on prompts that are wrapped otherwise than in the run."""
        self._note_template()
        return super().generate_until(*requests, **options)

    def _note_template(self) -> None:
        said = self.notes
        if self.number:
            self.notes = template_note(self.origin, replace(self.lm, chat=self.wrapped))
        for note in self.notes if self.notes != said else ():
            log.warning(f"{self.lm.name}: {note}")

    def set_cache_hook(self, cache_hook: CacheHook) -> None:
        """Refuse a cache of --use_cache that another model or cell filled: it names neither.

        Raises:
            SettingError: it has answers, and not of this cell.
        """
        super().set_cache_hook(cache_hook)
        kept = cache_hook.dbdict
        if kept is None:
            return
        learnt = sha256(b"".join(t.numpy().tobytes() for t in self.intervention.tensors().values()))
        mine = json.dumps([self.lm.digest, str(self.lm.dtype), self.params, learnt.hexdigest()])
        if len(kept) and kept.get("sadi_bench") != mine:
            raise SettingError(
                f"--use_cache: {kept.filename} holds answers of another model or cell; choose "
                "another path."
            )
        kept["sadi_bench"] = mine

    def get_model_info(self) -> dict[str, Any]:
        """Say in lm-eval's results which model this is, that it is steered, and how."""
        its, method = self.origin.model, self.origin.method
        return {
            "model_num_parameters": self.lm.network.num_parameters(),
            "model_dtype": str(self.lm.dtype),
            "model_revision": self.lm.revision,
            "sadi_bench": {
                "steered": self.number != 0,
                "run": str(self.place),
                "cell": self.number,
                "chosen_as": self.asked,
                "params": self.params,
                "method": dict(method) if self.number else None,
                "learnt_on": self.origin.task if self.number else None,
                "model": {name: its[name] for name in ("name", "source", "digest")},
                "device": str(self.lm.device),
                "counts": {name: self.counts[name] for name in ("cut", "overflowed")},
                "notes": list(self.notes),
                "version": version("sadi-bench"),
            },
        }


def result_name(model_args: Mapping[str, Any]) -> str:
    """Name results by run and cell: a steered model must not bear the plain model's name."""
    run, cell = Path(str(model_args.get("run"))), str(model_args.get("cell", "heldout"))
    name = run.parent.name if run.suffix and run.parent.name else run.name
    return f"{name}-{'unsteered' if cell in ('0', 'unsteered') else f'steered-{cell}'}"


def _arguments(given: Mapping[str, Any]) -> ModelArguments:
    known = [each.name for each in fields(ModelArguments)]
    for name in given:
        if name not in known:
            raise unknown_key("model_args", name, known)
    if given.get("run") is None:
        raise SettingError(
            "model_args: names no run; choose a run's folder, its name in runs_dir or a "
            "steering.safetensors file, as in --model_args run=RUN,cell=heldout."
        )
    return ModelArguments(**given)


def _found(given: ModelArguments) -> tuple[Path, Run | None]:
    """Find the run, or the file without one; every file of a run is checked by its digest."""
    runs = Path(given.runs_dir).expanduser()
    places = [Path(str(given.run)).expanduser(), runs / str(given.run)]
    if not isinstance(given.run, str) and runs.is_dir():
        # lm-eval has read a name such as 012345678901 as a number
        places += [at for at in runs.iterdir() if handle_cli_value_string(at.name) == given.run]
    for place in places:
        if place.exists():
            return place, load_run(place) if (place / CONFIG).is_file() else None
    raise SettingError(
        f"run={given.run}: no such folder or file, and no run of this name in "
        f"runs_dir={given.runs_dir}; name a run's folder or a steering.safetensors file."
    )


def _spec(given: ModelArguments, run: Run | None, steering: Intervention) -> ModelSpec:
    """Say which model to load: the one asked for, else the run's own, else the steering's."""
    if given.model is not None:
        spec = chosen("model", str(given.model), {})
    elif run is not None:
        spec = spec_of_run(run.path)
    else:
        spec = _source(steering)
    spec = replace(
        spec,
        dtype=given.dtype or steering.origin.model["dtype"],
        device=given.device or "auto",
        trust_remote_code=given.trust_remote_code or spec.trust_remote_code,
    )
    if given.pretrained is None:
        return spec
    return replace(spec, name=None, pretrained=str(given.pretrained), package=None, revision="main")


def _source(steering: Intervention) -> ModelSpec:
    """Return the model that a file without a run names; a packaged one is found by its name."""
    facts = steering.origin.model
    if "==" in facts["source"]:
        return chosen("model", facts["name"], {})
    return ModelSpec(facts["name"], facts["source"], revision=facts["revision"] or "main")
