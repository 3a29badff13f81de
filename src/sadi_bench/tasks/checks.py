"""What a task must have before it is built: each complaint names a setting and its bound."""

from sadi_bench.errors import SettingError
from sadi_bench.tasks.metrics import TRUE_ANSWERS, metric_of
from sadi_bench.tasks.spec import Negative, OutputType, TaskSpec
from sadi_bench.tasks.splits import Splits


def check_spec(spec: TaskSpec) -> None:
    """Refuse settings that are wrong whatever the rows are."""
    if not (spec.name or spec.harness):
        raise SettingError(
            "task.name: empty; choose a task (task=copa, for instance) or name your own."
        )
    if spec.chance is not None and not 0 < spec.chance < 1:
        raise SettingError(f"task.chance={spec.chance}: choose a fraction between 0 and 1.")
    most = spec.generation_kwargs.get("max_gen_toks", 1)
    if not isinstance(most, int) or most < 1:
        raise SettingError(
            f"task.generation_kwargs.max_gen_toks={most}: choose a whole number of at least 1."
        )
    if spec.n_test_cells is not None and spec.n_test_cells < 1:
        raise SettingError(
            f"task.n_test_cells={spec.n_test_cells}: choose at least 1, or null for every cell."
        )
    own = spec.process_results or spec.output_type != OutputType.multiple_choice
    if spec.harness and (own or spec.label_map or spec.dataset_path):
        raise SettingError(
            f"task.name={spec.name}: lm-eval's own YAML says its output_type, process_results, "
            "data and labels; leave them out here."
        )
    if spec.negative == Negative.untrue and TRUE_ANSWERS not in spec.columns:
        raise SettingError(
            f"task.negative=untrue: {spec.name} has no column {TRUE_ANSWERS}, which counts a row's "
            "true answers; choose random or opposite."
        )
    if spec.process_results is not None:
        _check_process_results(spec, spec.process_results)


def _check_process_results(spec: TaskSpec, name: str) -> None:
    metric = metric_of(name)
    if spec.output_type != metric.output_type:
        raise SettingError(
            f"task.process_results={name}: it reads answers of task.output_type="
            f"{metric.output_type.value}, and {spec.name} has {OutputType(spec.output_type).value}."
        )
    if missing := [c for c in metric.columns if spec.columns and c not in spec.columns]:
        raise SettingError(
            f"task.process_results={name}: {spec.name} has no column {', '.join(missing)}; add it "
            "to task.columns, or rename one with task.rename."
        )


def check_sides(spec: TaskSpec, splits: Splits) -> None:
    """Demand sides of the rows that pairs are made of, or that lm-eval itself compares with."""
    docs = list(splits.identify)
    if spec.process_results is None:
        docs += [*(splits.select or ()), *splits.test]
    for doc in docs:
        if not doc.choices:
            raise SettingError(
                f"task={spec.name}: {doc.where}: no sides to contrast; task.doc_to_choice must "
                "give two, the right one and a wrong one (an empty text is a blank)."
            )


def check_fewshot(spec: TaskSpec, splits: Splits) -> None:
    """Demonstrations are identify rows other than the one asked about."""
    most = len(splits.identify) - 1
    if not 0 <= spec.fewshot <= most:
        raise SettingError(
            f"task.fewshot={spec.fewshot}: demonstrations come from the {len(splits.identify):,} "
            f"identify rows; choose 0 to {most:,}."
        )
