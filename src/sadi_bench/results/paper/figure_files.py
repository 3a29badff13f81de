"""Put figures into a folder, unless what lies there was drawn from more documents."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image, UnidentifiedImageError

from sadi_bench.disk import write_atomically
from sadi_bench.results.paper.table_files import all_kept
from sadi_bench.results.run_dir import write_errors

DOCUMENTS = "Test documents"
"""Key of a PNG's text: how many test documents of all its runs a figure shows."""


@dataclass(frozen=True)
class Drawn:
    """Hold a figure, and the names of the runs that it shows."""

    figure: Figure
    runs: tuple[str, ...]


def put_figures(drawn: Mapping[str, tuple[Drawn, int]], to: Path) -> list[str]:
    """Write figures (file name → figure, number of documents) into a folder; return a line each.

    Raises:
        SettingError: no figure could be written, or the folder takes no files.
    """
    kept = {name: reason for name, (_, n) in drawn.items() if (reason := _reason(to / name, n))}
    if len(kept) == len(drawn):
        raise all_kept(list(kept.values()))
    images = {to / name: _png(*found) for name, found in drawn.items() if name not in kept}
    with write_errors(next(iter(images)), setting="to"):
        to.mkdir(parents=True, exist_ok=True)
        write_atomically(images)
    return [kept.get(name, str(to / name)) for name in drawn]


def _png(drawn: Drawn, n_documents: int) -> bytes:
    image = io.BytesIO()
    metadata = {DOCUMENTS: str(n_documents)}
    drawn.figure.savefig(image, format="png", dpi=150, metadata=metadata)
    return image.getvalue()


def _reason(file: Path, n_documents: int) -> str | None:
    """Say why a figure that is there must stay; None where it may be replaced, or is not there."""
    if not file.is_file():
        return None
    try:
        with Image.open(file) as image:
            before = int(image.info[DOCUMENTS])
    except (KeyError, ValueError, UnidentifiedImageError):
        return f"{file}: not replaced: this program did not draw it; delete it, or choose to=…"
    if before <= n_documents:
        return None
    return (
        f"{file}: not replaced: it shows runs with {before} test documents in all, these have "
        f"{n_documents}; delete the file, or measure as many."
    )
