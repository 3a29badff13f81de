"""The model of a finished run, loaded again: what its steering was learnt from."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sadi_bench.errors import SettingError
from sadi_bench.models.finetune import checkpoint_folder
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.loading import load_language_model
from sadi_bench.models.spec import ModelSpec, PackagedModel
from sadi_bench.results.reading import load_config, load_result


def model_of_run(path: Path) -> LanguageModel:
    """Load the model that config.yaml names, in the run's dtype, on this machine's device.

    Of a fine-tuned run that is its checkpoint, where the cache still holds it.

    Raises:
        SettingError: the run is not finished, its model does not load, or its checkpoint is gone.
    """
    spec = spec_of_run(path)
    tuned = load_result(path)["sadi_bench"].get("finetune")
    if tuned is None:
        return load_language_model(spec)
    folder = checkpoint_folder(tuned["checkpoint"])
    if folder is None:
        raise SettingError(
            f"{path}: its model was fine-tuned ({tuned['kind']}), and checkpoint "
            f"{tuned['checkpoint']} is no longer in the cache; compute the run again with "
            "force=true, which trains it anew."
        )
    there = replace(spec, pretrained=str(folder), package=None, tokenizer=None, revision="main")
    return replace(load_language_model(there), finetune=tuned)


def spec_of_run(path: Path) -> ModelSpec:
    """Return a run's settings of its model; the device is this machine's."""
    settings = load_config(path).get("model")
    try:
        return _spec(settings)
    except TypeError as error:  # a name that this version does not have, or no mapping
        raise SettingError(
            f"{path / 'config.yaml'}: its model's settings are not of this version ({error}); "
            "compute the run again with force=true."
        ) from error


def _spec(settings: Mapping[str, Any]) -> ModelSpec:
    package = settings.get("package") if isinstance(settings, Mapping) else None
    made = None if package is None else PackagedModel(**package)
    return ModelSpec(**{**settings, "package": made, "device": "auto"})
