"""The `sadi-bench` command: Hydra in front, one line and exit code 2 for a user's mistakes."""

import logging
import os
import sys

import hydra
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sadi_bench.config import config_folder, register_schemas
from sadi_bench.errors import SettingError, unknown_name

register_schemas()


@hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="config")
def _run(cfg: DictConfig) -> None:
    config = OmegaConf.to_object(cfg)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("sadi_bench").setLevel(logging.INFO)
    from sadi_bench.experiment import run  # seconds of imports that --help does not need

    run(config)


def main() -> None:
    """Run the command; show a traceback for a user's mistake only if asked to."""
    full = os.environ.get("HYDRA_FULL_ERROR") == "1" or "debug=true" in sys.argv[1:]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through to this function
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # libraries draw bars unasked
    try:
        _run()
    except (SettingError, HydraException, OmegaConfBaseException) as error:
        if full:
            raise
        sys.exit(_say(error))
    except KeyboardInterrupt:
        print("sadi-bench: interrupted; nothing that was finished is lost", file=sys.stderr)  # noqa: T201
        sys.exit(130)


def _say(error: Exception) -> int:
    """Print one line and return the exit code of a user's mistake."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = error.missing_cfg_file.rpartition("/")
        error = unknown_name(group, name, error.options)
    cause = error.__cause__
    if isinstance(error, HydraException) and isinstance(cause, OmegaConfBaseException | OSError):
        error = cause
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(line for line in lines if not line.startswith(("object_type", "reference")))
    print(f"sadi-bench: {text}", file=sys.stderr)  # noqa: T201
    return 2


if __name__ == "__main__":
    main()
