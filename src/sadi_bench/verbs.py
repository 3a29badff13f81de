"""The verbs behind `sadi-bench` but `run`: each takes words and settings, and prints.

Words are runs or names; settings are written as everywhere here, name=value; `--name VALUE` is the
same as name=VALUE. What a verb needs is imported when it is asked for.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from sadi_bench.disk import RUNS
from sadi_bench.errors import SettingError, unknown_key, unknown_name


@dataclass(frozen=True)
class Given:
    """Hold what was typed behind a verb."""

    words: tuple[str, ...]
    settings: dict[str, str]
    flags: frozenset[str]

    def path(self, name: str) -> Path | None:
        """Return a setting as a path; None where it was not typed."""
        return Path(self.settings[name]).expanduser() if name in self.settings else None

    def number(self, name: str, default: int) -> int:
        """Return a setting as a whole number of at least 1."""
        typed = self.settings.get(name, str(default))
        if not typed.isdigit() or int(typed) < 1:
            raise SettingError(f"{name}={typed}: choose a whole number of at least 1.")
        return int(typed)

    @property
    def runs_dir(self) -> Path:
        """Where runs are looked up by name."""
        return Path(self.settings.get("runs_dir", RUNS)).expanduser()

    def run(self) -> Path:
        """Find the folder of the run that is named first."""
        from sadi_bench.results.run_dir import run_folder

        return run_folder(self.words[0], self.runs_dir)


@dataclass(frozen=True)
class Verb:
    """Say what a verb is called with: `usage` is one line, `words` how many it takes."""

    call: Callable[[Given], None]
    usage: str
    words: tuple[int, int] = (0, 0)
    settings: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


def show(given: Given) -> None:
    """Print a finished run's table, or its documents."""
    from sadi_bench.results.showing import shown_docs, shown_run

    if which := given.settings.get("docs"):
        if which not in ("all", "flipped"):
            raise SettingError(f"docs={which}: choose all or flipped.")
        _print(shown_docs(given.run(), which, given.number("limit", 20)))
    else:
        _print(shown_run(given.run()))


def compare(given: Given) -> None:
    """Print two runs side by side, or two cells: `RUN:CELL`."""
    from sadi_bench.results.compare import compare, compare_table, side_of

    before, after = (side_of(word, given.runs_dir) for word in given.words)
    _print(compare_table(before, after, compare(before, after)))


def apply(given: Given) -> None:
    """Let the model of a run write, unsteered and steered side by side."""
    from sadi_bench.applying import chat_loop, side_by_side
    from sadi_bench.results.reading import check_run
    from sadi_bench.run_models import model_of_run
    from sadi_bench.steering.intervention import Intervention

    chat, typed = "chat" in given.flags, given.settings.get("prompt")
    if typed is None and sys.stdin.isatty() and not chat:
        raise SettingError('apply: what prompt? Say prompt="...", pipe a line each, or --chat.')
    check_run(given.run())
    lm = model_of_run(given.run())
    steering = Intervention.load(given.run())
    cell = steering.cell_of(given.settings.get("cell", "heldout"))
    if chat:
        chat_loop(lm, steering, cell, sys.stdin, _print)
        return
    prompts = [typed] if typed is not None else [line for line in sys.stdin.read().splitlines()]
    _print(side_by_side(lm, steering, cell, prompts, given.number("max_new_tokens", 40)))


def export(given: Given) -> None:
    """Write a run's steering for others: safetensors, a model card, results."""
    from sadi_bench.results.exporting import export_run

    if "to" not in given.settings:
        raise SettingError("export: where to? Say to=FOLDER, or to=hub:OWNER/NAME.")
    _print("\n".join(export_run(given.run(), given.settings["to"])))


def tables(given: Given) -> None:
    """Write the paper's tables from finished runs."""
    from sadi_bench.results.paper.write_tables import write_tables

    options = given.settings.get("options", "")
    model = given.settings.get("model")
    _print("\n".join(write_tables(given.runs_dir, given.path("to"), model, options)))


def figures(given: Given) -> None:
    """Draw the paper's figures from finished runs."""
    from sadi_bench.results.paper.write_figures import write_figures

    model = given.settings.get("model")
    _print("\n".join(write_figures(given.runs_dir, given.path("to"), model)))


def ls(given: Given) -> None:
    """List tasks, models, methods or runs, a line each."""
    if given.words[0] == "runs":
        from sadi_bench.results.run_list import listed_runs

        _print(listed_runs(given.runs_dir))
        return
    from sadi_bench.listing import LISTED, listed

    if given.words[0] not in LISTED:
        raise unknown_name("ls", given.words[0], [*LISTED, "runs"])
    _print(listed(given.words[0]))


def cache(given: Given) -> None:
    """Say what the cache holds, or delete parts of it: `cache prune PART`."""
    from sadi_bench.caching import cache_table, pruned

    if not given.words:
        _print(cache_table())
        return
    if given.words[0] != "prune":
        raise unknown_name("cache", given.words[0], ["prune"])
    _print(pruned(given.words[1:]))


def doctor(given: Given) -> None:
    """Check every file of the cache and of finished runs; exit code 1 if any is wrong."""
    from sadi_bench.disk import cache_folder
    from sadi_bench.doctor import wrong_in_cache, wrong_runs

    wrong = 0
    for line in chain(wrong_in_cache(cache_folder()), wrong_runs(given.runs_dir)):
        _print(line)
        wrong += 1
    if wrong:
        sys.exit(1)
    _print(f"{cache_folder()} and {given.runs_dir}: nothing is wrong")


VERBS: dict[str, Verb] = {
    "show": Verb(show, "show RUN [--docs flipped|all] [limit=20]", (1, 1),
                 ("docs", "limit", "runs_dir")),
    "compare": Verb(compare, "compare RUN_A RUN_B:3", (2, 2), ("runs_dir",)),
    "apply": Verb(apply, 'apply RUN prompt="..." [cell=heldout] [--chat]', (1, 1),
                  ("prompt", "cell", "max_new_tokens", "runs_dir"), ("chat",)),
    "export": Verb(export, "export RUN to=FOLDER|hub:OWNER/NAME", (1, 1), ("to", "runs_dir")),
    "tables": Verb(tables, "tables [runs_dir=] [to=] [model=]", (0, 0),
                   ("runs_dir", "to", "model", "options")),
    "figures": Verb(figures, "figures [runs_dir=] [to=] [model=]", (0, 0),
                    ("runs_dir", "to", "model")),
    "ls": Verb(ls, "ls tasks|models|methods|runs", (1, 1), ("runs_dir",)),
    "cache": Verb(cache, "cache [prune PART]", (0, 99)),
    "doctor": Verb(doctor, "doctor [runs_dir=]", (0, 0), ("runs_dir",)),
}  # fmt: skip


def call(name: str, arguments: Sequence[str]) -> None:
    """Do a verb with what was typed behind it.

    Raises:
        SettingError: too few or too many words, or a setting that the verb does not have.
    """
    verb = VERBS[name]
    given = _given(name, verb, arguments)
    low, high = verb.words
    if not low <= len(given.words) <= high:
        raise SettingError(
            f"{name}: {len(given.words)} names are typed; say sadi-bench {verb.usage}."
        )
    verb.call(given)


def _given(name: str, verb: Verb, arguments: Sequence[str]) -> Given:
    words, settings, flags, left = [], {}, set(), list(arguments)
    while left:
        word = left.pop(0)
        key, is_setting, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and not is_setting:
            if key in verb.flags:
                flags.add(key)
                continue
            if key in verb.settings and left:
                settings[key] = left.pop(0)
                continue
        elif not is_setting or not key.isidentifier():
            words.append(word)
            continue
        if key not in verb.settings:
            raise unknown_key(name, key, [*verb.settings, *verb.flags])
        settings[key] = value
    return Given(tuple(words), settings, frozenset(flags))


def _print(text: str) -> None:
    print(text.rstrip("\n"))  # noqa: T201
