"""What of a finished run may leave it: the held-out cell and the unsteered model, no oracle."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from sadi_bench.errors import SettingError
from sadi_bench.models.loading import TINY_RANDOM
from sadi_bench.results.reading import Run, load_run
from sadi_bench.results.run_facts import ROWS
from sadi_bench.steering.intervention import Intervention, Reach

LIBRARY = "sadi-bench"
HIDDEN = "oracle"
"""The row whose cell was chosen on the test documents: nothing that is exported names it."""
POSITIONS = {
    Reach.last_prompt: "the prompt's last token",
    Reach.from_last_prompt: "the prompt's last token and all later ones",
    Reach.all_tokens: "all tokens",
}


@dataclass(frozen=True)
class Exported:
    """Hold a run, its settings, and its steering as it is exported."""

    run: Run
    config: Mapping[str, Any]
    steering: Intervention

    @property
    def ours(self) -> Mapping[str, Any]:
        """What result.json says under `sadi_bench`."""
        return self.run.result["sadi_bench"]

    @property
    def heldout(self) -> Mapping[str, Any]:
        """The report's row of the held-out cell."""
        return self.ours["protocols"]["heldout"]

    @property
    def cell(self) -> int:
        """The held-out cell's number."""
        return self.heldout["cell"]

    @property
    def model(self) -> Mapping[str, Any]:
        """The run's settings of the model."""
        return self.config["model"]

    @property
    def hub_model(self) -> str | None:
        """The base model's name on the hub; None for one of a folder, a package or memory.

        Loaded from the hub, a model has a revision. A fine-tuned one was loaded from its checkpoint
        and has none, so there the name decides.
        """
        name, tuned = self.model["pretrained"], "finetune" in self.ours
        if self.model.get("package") or not name or name == TINY_RANDOM:
            return None
        known = self.steering.origin.model["revision"] or (tuned and not Path(name).exists())
        return name if known and _is_hub_name(name) else None

    @property
    def source(self) -> str:
        """What to call the base model in public: never a path of this machine."""
        return self.hub_model or self.ours["model"]

    def row_name(self, row: str) -> str:
        """Name a row of the report in words."""
        return "unsteered model" if row == "unsteered" else ROWS[row]


def read_exported(path: Path) -> Exported:
    """Read a finished run and leave out of its steering what must not be exported.

    Raises:
        SettingError: it has no one held-out cell, or a file is damaged.
    """
    run = load_run(path)
    _check_cell(path, run.result["sadi_bench"]["protocols"])
    exported = Exported(run, yaml.safe_load(run.config), run.steering)
    origin = exported.steering.origin
    chosen = {row: cell for row, cell in origin.chosen.items() if row != HIDDEN}
    public = {**origin.model, "source": _public(origin.model["source"], exported)}
    method = {k: Path(v).name if _is_place(v) else v for k, v in origin.method.items()}
    origin = replace(origin, chosen=chosen, model=public, method=method)
    return replace(exported, steering=replace(exported.steering, origin=origin))


def _check_cell(path: Path, rows: Mapping[str, Any]) -> None:
    heldout = rows.get("heldout")
    if heldout is None and not rows.get(HIDDEN):
        raise SettingError(
            f"export {path}: method none steers nothing; export a run of another method."
        )
    if heldout is None:
        raise SettingError(
            f"export {path}: no cell was held out, and one that was chosen on the test documents "
            "is not exported; run it with protocol=heldout."
        )
    if heldout["cell"] is None:
        raise SettingError(
            f"export {path}: its held-out row is the mean of {len(heldout['cells'])} random draws, "
            "no single cell; run it with method.draws=1."
        )


def _public(source: str, exported: Exported) -> str:
    """Keep a hub name or a package; of a folder keep what tables call the model."""
    return exported.source if _is_place(source) else source


def _is_place(value: Any) -> bool:
    """Say whether a setting is a place of this machine, such as a guiding model's folder."""
    return (
        isinstance(value, str)
        and bool(value)
        and (Path(value).is_absolute() or value.startswith("~") or Path(value).is_dir())
    )


def _is_hub_name(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True
