"""Hand a finished run's held-out cell to other tools: files in a folder, or a hub repository."""

import tempfile
from pathlib import Path

from huggingface_hub.repocard import metadata_load
from yaml import YAMLError

from sadi_bench.disk import write_atomically
from sadi_bench.errors import SettingError
from sadi_bench.results.exporting.control_vector import VECTOR, control_vector
from sadi_bench.results.exporting.exported import LIBRARY, Exported, read_exported
from sadi_bench.results.exporting.hub_upload import HUB, check_hub, upload
from sadi_bench.results.exporting.lm_eval_files import LM_EVAL_FILES, lm_eval_file
from sadi_bench.results.exporting.model_card import model_card
from sadi_bench.results.formatting import parameters
from sadi_bench.results.run_dir import STEERING, write_errors
from sadi_bench.results.strict_json import json_bytes
from sadi_bench.steering.artefact import to_bytes

CARD = "README.md"
NAMES = (STEERING, CARD, *LM_EVAL_FILES.values(), VECTOR)


def export_run(path: Path, to: str) -> list[str]:
    """Export the run at `path` to a folder, or to `hub:owner/name`; returns lines to print.

    Written are the steering with its whole grid, a model card, and lm-eval's results of the
    held-out cell and of the unsteered model, a file each. Nothing written says which cell was best
    on the test documents. In the folder, files with other names stay.

    Raises:
        SettingError: the run has no held-out cell, or the place cannot be written to or holds
            files of these names that were not exported.
    """
    if to.startswith(HUB):
        check_hub(to)
        with tempfile.TemporaryDirectory() as folder:
            lines = _export_to(path, Path(folder))
            return [*lines, f"uploaded to {upload(Path(folder), to, NAMES)}"]
    if not to.strip():
        raise SettingError("to=: name a folder, or hub:OWNER/NAME.")
    folder = Path(to).expanduser()
    _check_folder(folder)
    return [*_export_to(path, folder), f"exported to {folder}"]


def _export_to(path: Path, folder: Path) -> list[str]:
    exported = read_exported(path)
    contents, lines = _contents(exported)
    with write_errors(folder, "to"):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically({folder / name: content for name, content in contents.items()})
        for name in NAMES:
            if name not in contents:  # an earlier export's, of another cell
                (folder / name).unlink(missing_ok=True)
    return lines


def _contents(exported: Exported) -> tuple[dict[str, bytes], list[str]]:
    """Return every file's bytes, the card last, and what to say of each."""
    contents = {STEERING: to_bytes(exported.steering)}
    chosen = f"held-out cell {exported.cell} ({parameters(exported.heldout['params'])})"
    lines = [f"{STEERING}: {len(exported.steering.cells)} cells; {chosen}"]
    for row, name in LM_EVAL_FILES.items():
        found = lm_eval_file(exported, row)
        if found is None:
            lines.append(f"{name}: not written: lm-eval has no number where one overflowed")
            continue
        contents[name] = json_bytes(found)
        lines.append(f"{name}: lm-eval's results of the {exported.row_name(row)}")
    vector, said = control_vector(exported)
    lines.append(f"{VECTOR}: {said}")
    if vector is not None:
        contents[VECTOR] = vector
    contents[CARD] = model_card(exported, with_vector=vector is not None).encode()
    return contents, [*lines, f"{CARD}: a model card"]


def _check_folder(folder: Path) -> None:
    """Refuse to overwrite what was not exported: a project's README, or the files of a run."""
    there = [name for name in NAMES if (folder / name).exists()]
    if there and not _is_export(folder / CARD):
        raise SettingError(
            f"to={folder}: {there[0]} is there and was not exported by this command; choose "
            "another folder."
        )


def _is_export(card: Path) -> bool:
    try:
        return card.is_file() and (metadata_load(card) or {}).get("library_name") == LIBRARY
    except (ValueError, YAMLError):  # somebody's own text, or no text at all
        return False
