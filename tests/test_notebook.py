"""docs/notebooks/steering.ipynb runs offline, and its stored outputs are of an execution."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import sadi_bench

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebooks" / "steering.ipynb"


def read():
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(cell) -> str:
    found = [each.get("text") or each["data"]["text/plain"] for each in cell.outputs]
    return "".join(found)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The notebook, run by a kernel of its own in an empty folder."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = read()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("SADI_BENCH_CACHE", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "HF_HOME"):
            patch.setenv(name, str(folder / name))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("PYTHONPATH", str(Path(sadi_bench.__file__).parents[1]))
        patch.setenv("PYTHONWARNINGS", "ignore")  # tqdm's, where no widgets are installed
        patch.setenv("OMP_NUM_THREADS", "1")
        run = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}})
        run.execute()
    return notebook


def test_every_cell_shows_what_it_shows_in_the_repository(executed):
    for found, stored in zip(code_cells(executed), code_cells(read()), strict=True):
        assert [each.output_type for each in found.outputs] == [
            each.output_type for each in stored.outputs
        ]
        assert len(texts(found).splitlines()) == pytest.approx(
            len(texts(stored).splitlines()), abs=3
        )


def test_the_stored_outputs_are_of_one_execution_from_top_to_bottom():
    cells = code_cells(read())
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    shown = "\n".join(map(texts, cells))
    assert "held-out cell" in shown
    assert "changed inside the block: True\nas before behind it: True" in shown
    assert "/" not in shown.replace("runs/", "")  # no path of the machine it was run on


def test_the_notebook_uses_all_that_is_public():
    source = "\n".join(cell.source for cell in code_cells(read()))
    unused = [name for name in sadi_bench.__all__ if f"sb.{name}" not in source]
    assert unused == ["__version__", "load_run"]  # run returns what load_run reads
