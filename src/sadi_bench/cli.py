"""The `sadi-bench` command: Hydra in front, one line and exit code 2 for a user's mistakes."""

import logging
import os
import signal
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

import sadi_bench
from sadi_bench.batches.stopping import Terminated, handled, stop_now
from sadi_bench.composing import with_other_tasks
from sadi_bench.config import (
    config_folder,
    plain_words,
    register_launchers,
    register_schemas,
    settings_of,
)
from sadi_bench.errors import SweepFailed, unknown_name, user_line
from sadi_bench.session import Session
from sadi_bench.settings import RunConfig
from sadi_bench.verbs import VERBS, call

if TYPE_CHECKING:
    from sadi_bench.experiment import RunResult

SETTINGS = {field.name for field in fields(RunConfig)} | {"experiment"}

register_schemas()


class _Stopped(BaseException):
    """Carry a user's mistake (its cause) past Hydra, which would add a line of its own."""


def _run() -> None:
    """Hand the command line to Hydra; the runs of a sweep in one process share one session."""
    session = Session()
    register_launchers()
    main = hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="config")
    main(lambda cfg: _one(cfg, session))()


def _one(cfg: DictConfig, session: Session) -> None:
    """Do one run. A sweep's launcher may call this in another process or on another machine."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("sadi_bench").setLevel(logging.INFO)
    hydra_config = HydraConfig.get()
    if hydra_config.mode == RunMode.MULTIRUN:
        from sadi_bench.sweeps.swept import swept_run

        register_schemas()
        folder, number = Path(hydra_config.sweep.dir), hydra_config.job.num
        swept_run(folder, number, lambda: _computed(cfg, session), _line, tracebacks=cfg.debug)
        return
    try:
        _show(_computed(cfg, session))
    except Exception as error:
        raise _Stopped from error


def _computed(cfg: DictConfig, session: Session) -> "RunResult":
    runtime = HydraConfig.get().runtime
    config = with_other_tasks(settings_of(cfg, runtime.choices, runtime.config_sources))
    from sadi_bench.experiment import run  # seconds of imports that --help does not need

    return run(config, session)


def _show(finished: "RunResult") -> None:
    from sadi_bench.results.showing import shown_run  # the table with the paper's numbers

    if finished.remark:
        logging.getLogger("sadi_bench").info(finished.remark)
    print(shown_run(finished.path))  # noqa: T201


def _verb(name: str, arguments: list[str]) -> None:
    """Do what the first word says; without a verb it is a run."""
    if name == "--version":
        print(f"sadi-bench {sadi_bench.__version__}")  # noqa: T201
    elif name == "lm-eval":
        from sadi_bench.lm_eval_command import main as lm_eval

        lm_eval(arguments)
    elif name == "plan":
        from sadi_bench.plan_command import main as plan

        plan(arguments)
    elif name in VERBS:
        logging.basicConfig(format="%(message)s", level=logging.WARNING)
        call(name, arguments)
    elif name == "run" or not name or "=" in name or name[0] in "-+~" or name in SETTINGS:
        sys.argv[1:] = sorted(  # Hydra refuses --multirun behind a setting
            arguments if name == "run" else sys.argv[1:],
            key=lambda argument: argument not in ("-m", "--multirun"),
        )
        _run()
    else:
        raise unknown_name("sadi-bench", name, ["run", "plan", "lm-eval", *VERBS])


def main() -> None:
    """Run the command; show a traceback for a user's mistake only if asked to."""
    asked = {argument.lower() for argument in sys.argv[1:]}
    full = os.environ.get("HYDRA_FULL_ERROR") == "1" or "debug=true" in asked
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through to this function
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # libraries draw bars unasked
    try:
        with handled(stop_now):
            _verb(sys.argv[1] if len(sys.argv) > 1 else "", sys.argv[2:])
        return
    except _Stopped as stopped:
        error = stopped.__cause__
    except KeyboardInterrupt as asked:
        _say("interrupted; nothing that was finished is lost: the same command goes on from here")
        sys.exit(128 + (signal.SIGTERM if isinstance(asked, Terminated) else signal.SIGINT))
    except Exception as raised:
        error = raised
    if isinstance(error, BrokenPipeError):  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    if isinstance(error, SweepFailed):
        _say(str(error))
        sys.exit(1)
    line = _line(error)
    if full or line is None:
        raise error
    _say(line)
    sys.exit(2)


def _line(error: Exception) -> str | None:
    """Put a user's mistake in one line; None for a mistake of this program."""
    return user_line(error) or plain_words(error)


def _say(line: str) -> None:
    print(f"sadi-bench: {line}", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    main()
