"""From an installed wheel, in an empty folder: the command, and what another package adds."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent

import pytest

REPOSITORY = Path(__file__).parents[1]
PROJECT = """
    [build-system]
    requires = ["hatchling"]
    build-backend = "hatchling.build"
    [project]
    name = "own-steering"
    version = "1.0"
    [project.entry-points."sadi_bench.readers"]
    colon = "own_steering:read_colon"
    [tool.hatch.build.targets.wheel]
    packages = ["own_steering"]
    """
CODE = '''
    def read_colon(text, path):
        """Read a question, a colon and a label a line."""
        for number, line in enumerate(text.splitlines(), start=1):
            question, label = line.split(":")
            yield number, {"question": question, "label": label}
    '''
TASK = """
    name: colon
    doc_to_text: question
    doc_to_choice: ["No", "Yes"]
    doc_to_target: label
    files: {reader: colon}
    """

pytestmark = pytest.mark.skipif(
    find_spec("hatchling") is None, reason="no build backend: pip install hatchling"
)


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    finished = subprocess.run([*command, "--quiet", "--no-deps"], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The folder that both wheels are installed in."""
    folder = tmp_path_factory.mktemp("installed")
    own = folder / "source"
    write(own, {"pyproject.toml": PROJECT, "own_steering/__init__.py": CODE,
                "own_steering/conf/__init__.py": "",
                "own_steering/conf/task/colon.yaml": TASK})  # fmt: skip
    wheels = folder / "wheels"
    for source in (REPOSITORY, own):
        pip("wheel", "--no-build-isolation", "--wheel-dir", str(wheels), str(source))
    built = [str(path) for path in wheels.glob("*.whl")]
    pip("install", "--no-index", "--target", str(folder / "site"), *built)
    return folder / "site"


@pytest.fixture
def installed(site, tmp_path, monkeypatch):
    """Run the installed command in an empty folder."""
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.setenv("SADI_BENCH_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def run(*arguments: str) -> str:
        script = site / "bin" / "sadi-bench"
        finished = subprocess.run(
            [sys.executable, str(script), *arguments], capture_output=True, text=True, timeout=300
        )
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    return run


@pytest.mark.usefixtures("installed")
def test_it_is_the_wheel_that_runs(site):
    code = "import sadi_bench; print(sadi_bench.__file__)"
    found = subprocess.check_output([sys.executable, "-c", code], text=True, env=dict(os.environ))
    assert Path(found.strip()).is_relative_to(site)


def test_help_lists_the_choices_of_the_wheel_and_of_a_folder(installed):
    write(Path(), {"own/task/mine.yaml": TASK})
    words = installed("--config-dir", "own", "--help").replace(",", " ").split()
    assert {"copa", "mine", "sadi-head", "tiny-random"} <= {*words}


def test_a_packages_yaml_and_reader_and_a_folders_yaml_make_a_run(installed):
    rows = "".join(f"is it {i}?:{i % 2}\n" for i in range(24))
    method = "name: soft\nkind: sadi\ntop_k: 1\nstrength: 2\n"
    write(Path(), {"own/method/soft.yaml": method, "rows.txt": rows})
    shown = installed(
        "--config-dir", "own", "hydra.searchpath=[pkg://own_steering.conf]", "task=colon",
        "task.data_dir=rows.txt", "method=soft", "model=tiny-random",
    )  # fmt: skip
    assert "colon, tiny-random, soft, 0-shot: n = 12 test documents" in shown
    assert list(Path().glob("results/runs/*/result.json"))
