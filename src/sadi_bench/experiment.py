"""One run on one page: pairs → elements → every cell scored → a cell chosen → written down."""

import dataclasses
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import sadi_bench
from sadi_bench.models.finetune import finetuned
from sadi_bench.models.loading import folder_fingerprint, load_language_model, resolved
from sadi_bench.record import Clock, log_to, result_of, write_run
from sadi_bench.results.loading import load_result
from sadi_bench.results.protocols import protocols
from sadi_bench.results.run_dir import is_complete, run_id, writing_run
from sadi_bench.results.tables import run_table
from sadi_bench.scoring.grid import score_grid
from sadi_bench.scoring.harness import SteeredLM
from sadi_bench.settings import RunConfig
from sadi_bench.steering.contrast import encode_pairs
from sadi_bench.steering.methods import method_of
from sadi_bench.tasks.pairs import content_free_pairs, contrastive_pairs
from sadi_bench.tasks.spec import TrailingNewline
from sadi_bench.tasks.task import load_task

log = logging.getLogger("sadi_bench")
NOT_IDENTITY = ("runs_dir", "force", "debug", "token_budget")


@dataclass(frozen=True)
class RunResult:
    """Hold a finished run: its directory and what result.json says."""

    path: Path
    result: Mapping[str, Any]


def run(config: RunConfig) -> RunResult:
    """Fit one method on one task and score its whole grid; or show the run that is there."""
    clock = Clock()
    method = method_of(config.method)
    config = dataclasses.replace(config, model=resolved(config.model))
    task = load_task(config.task, protocol=config.protocol, seed=config.seed)
    identifier = identifier_of(config, task.fingerprint)
    runs_dir = Path(config.runs_dir).expanduser()
    path = runs_dir / identifier
    if is_complete(path) and not config.force:
        return shown(path, "this run was finished before; force=true computes it again")
    with writing_run(runs_dir, identifier) as run_dir, log_to(run_dir.log_path):
        say(task.name, task.notes)
        clock.lap("data")
        lm = load_language_model(config.model)
        say(lm.name, lm.notes)
        clock.lap("model")
        newline = task.spec.trailing_newline == TrailingNewline.prompt
        steered = SteeredLM(
            lm,
            chat=config.model.chat_template,
            keep_newline=newline,
            token_budget=config.token_budget,
        )
        template = steered.apply_chat_template if steered.chat else None
        pairs = contrastive_pairs(task, seed=config.seed, chat_template=template)
        encoded, merged_pairs = encode_pairs(lm, pairs, newline)
        if config.finetune.kind != "none":
            answers = [(pair.prompt, pair.positive) for pair in encoded]
            lm = steered.lm = finetuned(config.model, config.finetune, answers, config.seed)
            clock.lap("finetune")
        if texts := method.content_free:
            pairs = content_free_pairs(task, pairs, texts, seed=config.seed, chat_template=template)
            encoded, merged_pairs = encode_pairs(lm, pairs, newline)
        steered.intervention = method.fit(lm, encoded)
        clock.lap("identify")
        grid = score_grid(task, steered)
        clock.lap("score")
        # Before choosing, which may fail; not earlier: till now force=true keeps the old result.
        run_dir.write_config(yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True))
        write_run(run_dir, task, steered, grid, pairs, encoded)
        report = protocols(grid, config.select_by, seed=config.seed)
        result = result_of(config, method, task, steered, grid, report, merged_pairs)
        clock.lap("report")
        result["sadi_bench"]["seconds"] = clock.seconds
        run_dir.finish(result)
    return shown(path)


def identifier_of(config: RunConfig, data_fingerprint: str) -> str:
    """Hash what decides the result: config, package version, data, and a local model's files."""
    identity = {key: value for key, value in plain(config).items() if key not in NOT_IDENTITY}
    fingerprint = data_fingerprint + folder_fingerprint(config.model.pretrained)
    return run_id(identity, sadi_bench.__version__, fingerprint)


def plain(config: RunConfig) -> dict[str, Any]:
    """Turn a config into dicts, lists, strings and numbers; without fine-tuning it has no key."""
    settings = json.loads(json.dumps(dataclasses.asdict(config)))
    if config.finetune.kind == "none":
        del settings["finetune"]
    return settings


def say(name: str, notes: tuple[str, ...]) -> None:
    """Tell the user, and log.txt, what a reader of the numbers must know."""
    for note in notes:
        log.info("%s: %s", name, note)


def shown(path: Path, remark: str | None = None) -> RunResult:
    """Print a finished run's table and return it."""
    if remark:
        log.info(remark)
    result = load_result(path)
    print(run_table(result, path))  # noqa: T201
    return RunResult(path, result)
