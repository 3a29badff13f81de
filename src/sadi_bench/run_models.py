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
    """Load the model that a run measured, in its dtype, on this machine's device.

    Raises:
        SettingError: see `spec_of_run`; or the model does not load.
    """
    lm = load_language_model(spec_of_run(path))
    return replace(lm, finetune=load_result(path)["sadi_bench"].get("finetune"))


def spec_of_run(path: Path) -> ModelSpec:
    """Return the settings of a run's model; of a fine-tuned run, of its checkpoint in the cache.

    Raises:
        SettingError: the run is not finished, another version wrote it, or its checkpoint is gone.
    """
    tuned = load_result(path)["sadi_bench"].get("finetune")
    try:
        spec = _spec(load_config(path).get("model"))
    except TypeError as error:  # a name that this version does not have, or no mapping
        raise SettingError(
            f"{path / 'config.yaml'}: its model's settings are not of this version ({error}); "
            "compute the run again with force=true."
        ) from error
    if tuned is None:
        return spec
    folder = checkpoint_folder(tuned["checkpoint"])
    if folder is None:
        raise SettingError(
            f"{path}: its model was fine-tuned ({tuned['kind']}), and checkpoint "
            f"{tuned['checkpoint']} is no longer in the cache; compute the run again with "
            "force=true, which trains it anew, or set SADI_BENCH_CACHE to where it is."
        )
    return replace(spec, pretrained=str(folder), package=None, tokenizer=None, revision="main")


def _spec(settings: Mapping[str, Any]) -> ModelSpec:
    package = settings.get("package") if isinstance(settings, Mapping) else None
    made = None if package is None else PackagedModel(**package)
    return ModelSpec(**{**settings, "package": made, "device": "auto"})
