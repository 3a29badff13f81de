"""Take the rows and the recipe of any multiple-choice task of lm-eval, by its name."""

import difflib
from pathlib import Path
from typing import Any

from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager

from sadi_bench.errors import SettingError
from sadi_bench.tasks.hub_rows import hub_reason, patient_only_with_a_hub
from sadi_bench.tasks.located import LocatedRow, Rows
from sadi_bench.tasks.quiet import quiet_libraries
from sadi_bench.tasks.spec import TaskSpec

_DEMONSTRATION_FIELDS = ("doc_to_text", "doc_to_choice", "doc_to_target", "gen_prefix",
                         "target_delimiter", "fewshot_delimiter")  # fmt: skip


def harness_rows(
    spec: TaskSpec, catalogue: "Catalogue | None" = None
) -> tuple[Rows, dict[str, Any]]:
    """Return the rows of lm-eval's task `spec.name`, and its config without its data."""
    task = _load(spec, catalogue or Catalogue())
    _check_supported(spec, task)
    config = task.config.to_dict(keep_callable=True)
    demonstrations = config.pop("fewshot_config", None) or {}
    for field in ("dataset_path", "dataset_name", "dataset_kwargs", "training_split", "metadata",
                  "validation_split", "test_split", "fewshot_split", "process_docs"):  # fmt: skip
        config.pop(field, None)
    config["fewshot_config"] = {
        field: demonstrations[field]
        for field in _DEMONSTRATION_FIELDS
        if demonstrations.get(field) is not None
    }
    own = config.get("metric_list") or []
    named = {metric["metric"] for metric in own}
    config["metric_list"] = own + [m for m in spec.metric_list if m["metric"] not in named]
    return _rows(spec, task), config


class Catalogue:
    """Keep lm-eval's index of tasks, which reads some thousand YAMLs, for a folder of one's own."""

    def __init__(self) -> None:
        self._managers: dict[str | None, TaskManager] = {}

    def manager(self, include_path: str | None) -> TaskManager:
        """Return the index with a folder's tasks in it."""
        if include_path not in self._managers:
            self._managers[include_path] = TaskManager(include_path=include_path)
        return self._managers[include_path]


def _load(spec: TaskSpec, catalogue: Catalogue) -> ConfigurableTask:
    if not spec.name:
        raise SettingError(
            "task.name: which task of lm-eval? Say it, for instance task.name=arc_easy."
        )
    if spec.include_path and not Path(spec.include_path).is_dir():
        raise SettingError(f"task.include_path={spec.include_path}: no such folder.")
    with quiet_libraries():
        manager = catalogue.manager(spec.include_path)
        if spec.name not in manager.all_tasks:
            raise _unknown(spec.name, manager.all_subtasks)
        if spec.name not in manager.all_subtasks:
            raise SettingError(
                f"task.name={spec.name}: a group of tasks; choose one of them, as "
                f"`lm-eval ls subtasks` lists them."
            )
        try:
            with patient_only_with_a_hub():
                return manager.load(spec.name)["tasks"][spec.name]
        except Exception as error:  # loads data: any error of datasets, the hub, or the YAML
            raise SettingError(
                f"task.name={spec.name}: lm-eval could not load it: {hub_reason(error)}. "
                "If its data is on the hub, check the network and HF_TOKEN; task=movie_reviews "
                "needs no hub."
            ) from error


def _unknown(name: str, known: list[str]) -> SettingError:
    """Name the nearest few only: lm-eval knows some ten thousand."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return SettingError(
        f"task.name={name}: unknown to lm-eval.{hint} `lm-eval ls tasks` lists them all; "
        "task.include_path adds a folder of your own."
    )


def _check_supported(spec: TaskSpec, task: ConfigurableTask) -> None:
    """Refuse what has no answers to contrast, and what scores them in a way of its own."""
    if task.OUTPUT_TYPE != "multiple_choice":
        raise SettingError(
            f"task.name={spec.name}: output_type {task.OUTPUT_TYPE}; only multiple_choice tasks "
            "are supported."
        )
    if task.multiple_input:
        raise SettingError(
            f"task.name={spec.name}: its answers stand inside the prompt; choose a task whose "
            "answers follow it."
        )
    if task.config.process_results is not None or task.config.use_prompt is not None:
        raise SettingError(
            f"task.name={spec.name}: scores or prompts with a function of its own; choose a plain "
            "multiple_choice task."
        )


def _rows(spec: TaskSpec, task: ConfigurableTask) -> Rows:
    """Test on the test docs, else the validation docs; identify on what comes before them."""
    test_split = "test" if task.has_test_docs() else "validation"
    test = task.test_docs() if task.has_test_docs() else task.validation_docs()
    if task.has_training_docs():
        identify, identify_split = task.training_docs(), "training"
    elif task.has_test_docs() and task.has_validation_docs():
        identify, identify_split = task.validation_docs(), "validation"
    else:
        identify, identify_split = [], None
    notes = [f"lm-eval's {spec.name}: tested on its {test_split} docs"]
    if identify_split:
        notes.append(f"identified on its {identify_split} docs")
    if (shots := task.config.num_fewshot) and shots != spec.fewshot:
        notes.append(f"task.fewshot={spec.fewshot} is used where lm-eval's default is {shots}")
    return Rows(
        _located(identify, f"{identify_split} docs"),
        _located(test, f"{test_split} docs"),
        carve=identify_split is None,
        notes=notes,
    )


def _located(docs: Any, where: str) -> list[LocatedRow]:
    return [(f"{where} row {index}", dict(doc)) for index, doc in enumerate(docs)]
