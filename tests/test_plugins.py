"""A reader, metric or family of another package is found by entry point, imported if asked for."""

import dataclasses
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from transformers import GPTNeoConfig

from sadi_bench import plugins
from sadi_bench.errors import SettingError
from sadi_bench.models.families import GPT2, family_of
from sadi_bench.tasks.sources import read_rows
from sadi_bench.tasks.spec import OutputType, TaskSpec
from sadi_bench.tasks.task import load_task

CODE = """
    from sadi_bench.models.families import GPT2
    from sadi_bench.tasks.metrics import Metric

    def read_letters(text, path, *, most: float = 9):
        for number, letter in enumerate(text.strip(), start=1):
            yield number, {"letter": letter, "code": ord(letter)}

    def shouting(row, results):
        return {"shouting": float(results[0].isupper())}

    shout = Metric(shouting, columns=("letter",))
    family = GPT2
    """
ENTRIES = {
    plugins.READERS: "letters = letterbox:read_letters",
    plugins.METRICS: "shout = letterbox:shout",
    plugins.FAMILIES: "gpt_neo = letterbox:family",
}


def install(folder: Path, name: str, entries: dict[str, str], code: str = "") -> None:
    """Write a package as pip leaves it: a module and its metadata."""
    (folder / f"{name}.py").write_text(dedent(code))
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    groups = "".join(f"[{group}]\n{lines}\n" for group, lines in entries.items())
    (info / "entry_points.txt").write_text(groups)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of installed packages."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in ("letterbox", "other", "broken"):
        sys.modules.pop(name, None)


@pytest.fixture
def letterbox(site):
    install(site, "letterbox", ENTRIES, CODE)


def letters(tmp_path, **fields) -> TaskSpec:
    path = tmp_path / "letters.txt"
    path.write_text("aBcDeFgHiJkL")
    spec = TaskSpec(name="mine", data_dir=str(path), doc_to_text="{{letter}}", **fields)
    spec.files.reader = "letters"
    return spec


@pytest.mark.usefixtures("letterbox")
def test_a_reader_of_another_package_reads_a_task(tmp_path):
    rows = read_rows(letters(tmp_path)).test
    assert rows[1] == (f"{tmp_path}/letters.txt line 2", {"letter": "B", "code": 66})


@pytest.mark.usefixtures("letterbox")
def test_its_limits_are_checked_like_ours(tmp_path):
    spec = letters(tmp_path)
    spec.files.limits = {"least": 1}
    with pytest.raises(SettingError, match=r"task\.files\.limits\.least: no such .* Known: most"):
        read_rows(spec)


@pytest.mark.usefixtures("letterbox")
def test_a_metric_of_another_package_is_what_a_task_is_measured_by(tmp_path):
    metric = {"metric": "shouting", "aggregation": "mean", "higher_is_better": True}
    spec = letters(
        tmp_path, output_type=OutputType.generate_until, process_results="shout",
        doc_to_choice="{{ [letter, ''] }}", doc_to_target="0", metric_list=[metric],
    )  # fmt: skip
    task = load_task(spec, protocol="heldout", seed=0)
    assert task.metrics == {"shouting": True}
    assert task.test.process_results(task.test.test_docs()[0], ["LOUD"]) == {"shouting": 1.0}
    lacking = dataclasses.replace(spec, columns=["code"])
    with pytest.raises(SettingError, match="process_results=shout: mine has no column letter"):
        load_task(lacking, protocol="heldout", seed=0)
    unread = dataclasses.replace(spec, rename={"letter": "sign"}, doc_to_text="{{sign}}")
    unread.doc_to_choice = "{{ [sign, ''] }}"
    with pytest.raises(SettingError, match="line 1: expected a text or value for letter, found No"):
        load_task(unread, protocol="heldout", seed=0)


@pytest.mark.usefixtures("letterbox")
def test_a_family_of_another_package_describes_a_model():
    assert family_of(GPTNeoConfig()) is GPT2


@pytest.mark.usefixtures("letterbox")
def test_a_package_is_imported_only_when_its_name_is_asked_for():
    assert set(plugins.plugins(plugins.READERS)) == {"letters"}
    plugins.by_name("x", "ours", {"ours": 1}, plugins.READERS)
    assert "letterbox" not in sys.modules


@pytest.mark.usefixtures("letterbox")
def test_an_unknown_name_lists_what_other_packages_add(tmp_path):
    spec = letters(tmp_path)
    spec.files.reader = "leters"
    with pytest.raises(SettingError, match="reader=leters: unknown. Did you mean letters"):
        read_rows(spec)


@pytest.mark.parametrize(
    ("name", "entry", "complaint"),
    [
        ("other", "csv = other:x", "sadi_bench.readers: other 1.0 adds 'csv', which this program "),
        ("other", "letters = other:x", "both add 'letters'; uninstall one of them."),
        ("broken", "bad = broken:x", "bad (broken:x) of broken 1.0 does not load (ZeroDivisionErr"),
        ("other", "bad = other:y", "bad (other:y) of other 1.0 does not load (AttributeError: "),
        ("other", "bad = nowhere:y", "bad (nowhere:y) of other 1.0 does not load (ModuleNotFound"),
    ],
)
@pytest.mark.usefixtures("letterbox")
def test_a_package_that_clashes_or_does_not_load_is_one_line(
    tmp_path, site, name, entry, complaint
):
    install(site, name, {plugins.READERS: entry}, "1 / 0" if name == "broken" else "x = 1")
    spec = letters(tmp_path)
    spec.files.reader = entry.partition(" ")[0]
    with pytest.raises(SettingError) as caught:
        read_rows(spec)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_metric_that_is_none_is_one_line(tmp_path, site):
    install(site, "other", {plugins.METRICS: "shout = other:x"}, "x = 1")
    spec = letters(tmp_path, process_results="shout")
    with pytest.raises(SettingError, match=r"shout: .* gives no sadi_bench\.tasks\.metrics\.Metr"):
        load_task(spec, protocol="heldout", seed=0)


@pytest.mark.usefixtures("letterbox")
def test_a_used_package_is_named_by_its_version_and_its_sources(site):
    used = [(plugins.READERS, "letters"), (plugins.METRICS, "triviaqa"), (plugins.METRICS, None)]
    before = plugins.versions(used)
    assert list(before) == ["letterbox"]
    assert before["letterbox"].startswith("1.0 ")
    with (site / "letterbox.py").open("a") as file:
        file.write("# another version\n")
    assert plugins.versions(used) != before
    assert plugins.versions(used[1:]) == {}
