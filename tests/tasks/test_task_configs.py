"""Every YAML of configs/task composes against the schema, and says how it is used."""

import subprocess
import sys
from pathlib import Path

import pytest
from hydra.errors import HydraException

from sadi_bench.tasks.metrics import METRICS
from sadi_bench.tasks.readers import HUB_READERS, READERS
from sadi_bench.tasks.spec import Negative, OutputType, TaskSpec, TrailingNewline

CONFIGS = Path(__file__).parents[2] / "configs" / "task"
OPEN_ENDED = ("toxigen", "triviaqa", "truthfulqa", "truthfulqa_2025")
TASKS = sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def test_every_task_of_the_paper_that_this_release_covers_has_a_config():
    xcopa = {f"xcopa_{language}" for language in ["id", "it", "sw", "ta", "th", "tr", "vi", "zh"]}
    others = [
        "boolq",
        "copa",
        "harness",
        "mmlu",
        "movie_reviews",
        "movie_reviews_capital",
        "nli",
        "pairs",
        "sst2",
        "sst5",
        "storycloze",
        "toxigen",
        "triviaqa",
        "truthfulqa",
        "truthfulqa_2025",
        "winogrande",
    ]
    assert set(TASKS) == xcopa | set(others)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_config_composes_into_a_spec(compose_task, name):
    spec = compose_task(name)
    assert isinstance(spec, TaskSpec)
    assert spec.harness or spec.name == name
    assert spec.harness or spec.files.reader in READERS
    if isinstance(spec.doc_to_choice, list):
        assert spec.chance == pytest.approx(1 / len(spec.doc_to_choice))


@pytest.mark.parametrize("name", OPEN_ENDED)
def test_an_open_ended_task_names_its_generation_and_its_metric(compose_task, name):
    spec = compose_task(name)
    assert set(spec.generation_kwargs) == {"until", "max_gen_toks"}
    assert spec.process_results in METRICS
    assert spec.chance is None
    assert (spec.output_type == OutputType.multiple_choice) == name.startswith("truthfulqa")
    assert all(hub.reader in HUB_READERS for hub in (spec.hub, spec.identify_hub) if hub.path)


@pytest.mark.parametrize("name", TASKS)
def test_the_first_line_of_every_task_config_is_its_command(name):
    first = (CONFIGS / f"{name}.yaml").read_text().splitlines()[0]
    assert first.startswith(f"# sadi-bench task={name}")


def test_an_unknown_field_of_a_task_is_refused(compose_task):
    with pytest.raises(HydraException, match="chanse"):
        compose_task("copa", "task.chanse=0.5")


@pytest.mark.parametrize("name", TASKS)
def test_only_the_copa_prompts_own_their_last_newline(compose_task, name):
    spec = compose_task(name)
    ends_in_newline = spec.doc_to_text.endswith("\n")
    assert (spec.trailing_newline == TrailingNewline.prompt) == ends_in_newline


def test_only_sst5_contrasts_opposite_labels(compose_task):
    assert [n for n in TASKS if compose_task(n).negative == Negative.opposite] == ["sst5"]


def test_the_schema_imports_no_heavy_library():
    heavy = "{'torch', 'datasets', 'lm_eval', 'pandas', 'transformers'}"
    code = f"import sys, sadi_bench.tasks.spec; sys.exit(len({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
