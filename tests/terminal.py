"""The command, as a terminal sees it, in this process: exit code, standard output and error."""

import io
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest
from hydra.core.global_hydra import GlobalHydra

from sadi_bench.cli import main

SMALL = ("model=tiny-random", "task=boolq", "task.n_pairs=8", "task.n_select=6", "task.n_test=6",
         "method.top_k=[1,3]", "method.strength=[1,5]")  # fmt: skip


@dataclass(frozen=True)
class Finished:
    code: int
    out: str
    err: str

    @property
    def complaints(self) -> list[str]:
        """The lines that are not the log's."""
        return [line for line in self.err.splitlines() if line.startswith("sadi-bench: ")]

    @property
    def path(self) -> Path:
        return Path(self.out.split("run directory: ")[-1].strip())

    @property
    def result(self) -> dict:
        return json.loads((self.path / "result.json").read_text())


def command(*arguments: str) -> Finished:
    """Run `sadi-bench ARGUMENTS`; what it raises instead of telling the user comes through."""
    out, err, root = io.StringIO(), io.StringIO(), logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.handlers.clear()  # the command's handler must write into this call's standard error
    GlobalHydra.instance().clear()
    code = 0
    try:
        with (
            patch.object(sys, "argv", ["sadi-bench", *arguments]),
            patch.dict(os.environ),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            main()
    except SystemExit as stopped:
        code = stopped.code or 0
    finally:
        GlobalHydra.instance().clear()
        root.handlers[:] = handlers
        root.setLevel(level)
    return Finished(code, out.getvalue(), err.getvalue())


def small_run(folder: Path, *arguments: str) -> Finished:
    """Run on tiny-random and a few rows; a later setting takes the place of an earlier one."""
    defaults = (*SMALL, f"task.data_dir={folder / 'boolq'}", f"runs_dir={folder / 'runs'}")
    given = {argument.partition("=")[0] for argument in arguments}
    if any(argument.startswith("method=") for argument in arguments):
        given |= {"method.top_k", "method.strength"}
    return command(*(d for d in defaults if d.partition("=")[0] not in given), *arguments)


def place_of_runs(folder: Path) -> Iterator[Path]:
    """Work in a folder with rows and a cache of its own: the body of a fixture."""
    write_rows(folder / "boolq")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SADI_BENCH_CACHE", str(folder / "cache"))
        yield folder


def write_rows(folder: Path, train: int = 30, dev: int = 12) -> None:
    """Write BoolQ's files, with a passage of its own for every question."""
    folder.mkdir(parents=True)
    for name, count in (("train", train), ("dev", dev)):
        rows = [
            {
                "question": f"is {name} number {i} {('true', 'so', 'real')[i % 3]}",
                "passage": f"{name} {i * 7919 % 101}: {'yes it is' if i % 3 else 'by no means'}.",
                "answer": i % 3 > 0,
            }
            for i in range(count)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
