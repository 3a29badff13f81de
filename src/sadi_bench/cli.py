"""The `sadi-bench` command: Hydra in front, one line and exit code 2 for a user's mistakes."""

import errno
import logging
import os
import sys
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from sadi_bench.config import config_folder, plain_words, register_schemas, settings_of
from sadi_bench.errors import SettingError
from sadi_bench.session import Session

if TYPE_CHECKING:
    from sadi_bench.experiment import RunResult

# A place that is full, read-only or forbidden is the user's to mend, wherever it is found out.
PLACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM,
         errno.ENOTDIR, errno.EEXIST}  # fmt: skip

register_schemas()


class _Stopped(BaseException):
    """Carry a user's mistake (its cause) past Hydra, which would add a line of its own."""


def _run() -> None:
    """Hand the command line to Hydra; the runs of a sweep share one session."""
    session = Session()
    main = hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="config")
    main(lambda cfg: _one(cfg, session))()


def _one(cfg: DictConfig, session: Session) -> None:
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("sadi_bench").setLevel(logging.INFO)
    hydra_config = HydraConfig.get()
    try:
        runtime = hydra_config.runtime
        config = settings_of(cfg, runtime.choices, runtime.config_sources)
        from sadi_bench.experiment import run  # seconds of imports that --help does not need

        finished = run(config, session)
        _show(finished)
    except Exception as error:
        if hydra_config.mode != RunMode.MULTIRUN:
            raise _Stopped from error
        # The other runs go on, and Hydra tells of the first failure alone, at the end.
        overrides = " ".join(hydra_config.overrides.task)
        _say(f"{_line(error) or repr(error)} (run {hydra_config.job.num}: {overrides})")
        raise


def _show(finished: "RunResult") -> None:
    from sadi_bench.results.tables import run_table

    if finished.remark:
        logging.getLogger("sadi_bench").info(finished.remark)
    print(run_table(finished.result, finished.path))  # noqa: T201


def _compare(arguments: list[str]) -> None:
    """Print `sadi-bench compare RUN_A RUN_B`: names or folders of runs, each with `:CELL` if asked.

    Settings: runs_dir=FOLDER, where names are looked up.
    """
    from sadi_bench.results.compare import compare, compare_table, side_of

    names = [argument for argument in arguments if not argument.startswith("runs_dir=")]
    folders = [argument.partition("=")[2] for argument in arguments if argument not in names]
    if len(names) != 2:
        raise SettingError(
            f"compare: {len(names)} runs are named; name two, like compare RUN_A RUN_B:3."
        )
    before, after = (side_of(name, *folders[-1:]) for name in names)
    print(compare_table(before, after, compare(before, after)))  # noqa: T201


def main() -> None:
    """Run the command; show a traceback for a user's mistake only if asked to."""
    asked = {argument.lower() for argument in sys.argv[1:]}
    full = os.environ.get("HYDRA_FULL_ERROR") == "1" or "debug=true" in asked
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through to this function
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda a: a not in ("-m", "--multirun"))  # or refused
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # libraries draw bars unasked
    try:
        _compare(sys.argv[2:]) if sys.argv[1:2] == ["compare"] else _run()
        return
    except _Stopped as stopped:
        error = stopped.__cause__
    except KeyboardInterrupt:
        _say("interrupted; nothing that was finished is lost")
        sys.exit(130)
    except Exception as raised:
        error = raised
    if isinstance(error, BrokenPipeError):  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    line = _line(error)
    if full or line is None:
        raise error
    _say(line)
    sys.exit(2)


def _line(error: Exception) -> str | None:
    """Put a user's mistake in one line; None for a mistake of this program."""
    if isinstance(error, SettingError):
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in PLACE:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}; make room there or choose a place you can write to."
    return plain_words(error)


def _say(line: str) -> None:
    print(f"sadi-bench: {line}", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    main()
