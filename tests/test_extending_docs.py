"""Every example of docs/extending.md is run as it stands there."""

import json
import re
import sys
from pathlib import Path

import pytest

from sadi_bench.steering.intervention import Intervention
from terminal import Finished, command

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
FILES = dict(re.findall(r"^`([\w./]+)`:\n\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
PACKAGE = "hydra.searchpath=[pkg://own_steering.conf]"


def entry_points(toml: str) -> str:
    """Turn the tables of entry points into the file that an installer makes of them."""
    groups = re.findall(r'entry-points\."(\S+)"\]\n((?:\w+ = .*\n)+)', toml)
    return "".join(f"[{group}]\n{lines}".replace('"', "") for group, lines in groups)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with the page's files, and its package installed."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    package = tmp_path / "site" / "own_steering"
    for part in (package, package / "conf"):
        (part / "__init__.py").write_text("")
    info = tmp_path / "site" / "own_steering-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-steering\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points(FILES["site/own_steering/pyproject.toml"]))
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "own_steering"]:
        del sys.modules[name]


def run(*arguments: str) -> Finished:
    finished = command(*arguments, "model=tiny-random", "runs_dir=runs")
    assert (finished.code, finished.complaints) == (0, [])
    return finished


def headlines(words: list[str]) -> list[dict[str, str]]:
    return [{"text": f"Rates go {word} {i}", "verdict": word} for i, word in enumerate(words)]


def test_the_page_shows_eight_files():
    assert len(FILES) == 8
    assert "pairs.jsonl" in FILES


def test_the_task_of_a_folder_and_its_csv(folder):
    rows = headlines(["up", "down", "-"] * 10)
    lines = ["text,verdict", *(",".join(row.values()) for row in rows)]
    (folder / "headlines.csv").write_text("\n".join(lines) + "\n")
    finished = run("--config-dir", "own", "task=headlines", "task.data_dir=headlines.csv",
                   "method=none")  # fmt: skip
    assert "n = 10 test documents" in finished.out
    assert "10 of 30 rows left out: task.label_map" in finished.err


def test_the_task_in_lm_evals_words(folder):
    for name in ("train", "test"):
        lines = [json.dumps(row) + "\n" for row in headlines(["up", "down"] * 6)]
        (folder / f"{name}.jsonl").write_text("".join(lines).replace("Rates", name))
    assert "n = 12 test documents" in run(
        "--config-dir", "own", "task=headlines_json", "method=none"
    ).out  # fmt: skip


def test_the_pairs(folder):
    line = FILES["pairs.jsonl"].splitlines()[0]
    more = [line.replace("hot", f"hot {i}") for i in range(10)]
    (folder / "pairs.jsonl").write_text(FILES["pairs.jsonl"] + "\n".join(more) + "\n")
    assert (
        "n = 6 test documents" in run("task=pairs", "task.data_dir=pairs.jsonl", "method=none").out
    )


def test_the_method_of_a_package_steers(folder):
    rows = "".join(f"{line}\n" for line in FILES["pairs.jsonl"].splitlines()[:1])
    (folder / "pairs.jsonl").write_text("".join(rows.replace("hot", f"hot {i}") for i in range(12)))
    finished = run(PACKAGE, "task=pairs", "task.data_dir=pairs.jsonl", "method=ablate")
    assert "pairs, tiny-random, ablate, 0-shot" in finished.out
    oracle = finished.result["sadi_bench"]["protocols"]["oracle"]
    assert oracle["params"]["share"] in (0.5, 1.0)
    again = Intervention.load(finished.path)
    assert type(again).__module__ == "own_steering.ablate"
    assert again.direction.norm().item() == pytest.approx(1)


def test_the_metric_and_the_reader_of_a_package(folder):
    (folder / "rows.txt").write_text("".join(f"What is {i}?:{i}\n" for i in range(16)))
    finished = run(
        PACKAGE, "task=colon", "task.data_dir=rows.txt", "method=ablate", "method.share=1"
    )
    assert "contains" in finished.result["sadi_bench"]["protocols"]["unsteered"]["metrics"]


@pytest.mark.usefixtures("folder")
def test_help_lists_what_the_page_adds():
    words = command("--config-dir", "own", PACKAGE, "--help").out.replace(",", " ").split()
    assert {"headlines", "headlines_json", "colon", "ablate"} <= {*words}
