"""export: what leaves a run says steered, its cell and its intervals, and never the oracle."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from huggingface_hub import ModelCard
from huggingface_hub.repocard import metadata_load
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from lm_eval.utils import make_table

from sadi_bench.errors import SettingError
from sadi_bench.models import finetune
from sadi_bench.models.tiny_random import tiny_random
from sadi_bench.results.exporting import NAMES, export_run
from sadi_bench.results.exporting.exported import Exported, read_exported
from sadi_bench.results.exporting.model_card import card_data, model_card
from sadi_bench.results.formatting import score, score_interval
from sadi_bench.results.reading import load_run
from sadi_bench.steering.intervention import Intervention
from terminal import place_of_runs, small_run

STRONG = ("method.top_k=[3,1]", "method.strength=[50,-20]")
ADDED = ("method=caa", "method.layer=[1,2]", "method.multiplier=[-2,4]")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with rows, where the runs of this file are made."""
    yield from place_of_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def run(place) -> Path:
    return small_run(place, *STRONG).path


@pytest.fixture(scope="module")
def added(place) -> Path:
    return small_run(place, *ADDED).path


@pytest.fixture(scope="module")
def folder(run, place) -> Path:
    export_run(run, str(place / "exported"))
    return place / "exported"


def test_the_steering_keeps_its_grid_and_its_held_out_cell_alone(run, folder):
    before, after = Intervention.load(run), Intervention.load(folder)
    assert before.origin.chosen.keys() == {"unsteered", "heldout", "oracle"}
    chosen = {row: before.origin.chosen[row] for row in ("unsteered", "heldout")}
    assert after.origin.chosen == chosen
    assert after.cells == before.cells
    for name, tensor in before.tensors().items():
        np.testing.assert_array_equal(tensor, after.tensors()[name])


def test_nothing_that_is_exported_tells_of_the_oracle(folder, added, place):
    export_run(added, str(place / "vector"))
    files = [*folder.iterdir(), *(place / "vector").iterdir()]
    assert {file.name for file in files} == set(NAMES)
    assert not [file for file in files if b"oracle" in file.read_bytes().lower()]


def test_the_card_is_read_by_the_hubs_own_library_and_gives_the_reports_numbers(run, folder):
    card = ModelCard.load(folder / "README.md")
    rows = load_run(run).report["protocols"]
    values = [result.metric_value for result in card.data.eval_results]
    metrics = ("acc", "paper_match", "auc", "acc_biased")
    assert values == [
        rows[row]["metrics"][metric]["value"]
        for row in ("heldout", "unsteered")
        for metric in metrics
    ]
    assert [r.metric_type for r in card.data.eval_results[:2]] == ["accuracy", "paper_match"]
    assert card.data.tags == ["activation-steering", "steering-vectors", "sadi", "sadi-head"]
    index = metadata_load(folder / "README.md")["model-index"]
    assert eval_results_to_model_index(*model_index_to_eval_results(index)) == index


def test_the_cards_table_has_the_values_with_their_intervals(run, folder):
    text = (folder / "README.md").read_text()
    rows = load_run(run).report["protocols"]
    cells = [line.split(" | ") for line in text.splitlines() if line.startswith("| acc %")]
    shown = []
    for row in ("unsteered", "heldout"):
        found = rows[row]["metrics"]["acc"]
        shown += [score("acc", found["value"]), score_interval("acc", found["ci95"])]
    assert cells[0][1:5] == shown
    assert load_run(run).report["diagnosis"]["sentence"] in text


def test_the_cards_code_runs_where_the_card_is(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    code = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert len(code) == 1
    exec(code[0], {})
    assert capsys.readouterr().out.startswith("[")


def test_a_base_model_is_named_where_it_has_a_name_on_the_hub(run):
    exported = read_exported(run)
    assert card_data(exported).base_model is None

    def named(name: str, revision: str = "") -> Exported:
        origin = exported.steering.origin
        origin = replace(origin, model={**origin.model, "revision": revision})
        config = {**exported.config, "model": {**exported.config["model"], "pretrained": name}}
        return replace(exported, config=config, steering=replace(exported.steering, origin=origin))

    llama = named("meta-llama/Llama-2-7b-hf", "01c7f73d")
    assert card_data(llama).base_model == "meta-llama/Llama-2-7b-hf"
    load = 'load_model("meta-llama/Llama-2-7b-hf", dtype="float32", revision="01c7f73d")'
    assert load in model_card(llama, with_vector=False)
    assert card_data(named("models/mine")).base_model is None  # a folder that is gone


def test_lm_evals_files_hold_a_row_each_and_say_whether_it_was_steered(run, folder):
    result, steering = load_run(run).result, Intervention.load(run)
    cell = steering.origin.chosen["heldout"]
    params = dict(steering.cells[cell].params)
    args = {"pretrained": "tiny-random", "dtype": "float32"}
    steered = {**args, "steered": True, "method": "sadi-head", "cell": cell, **params}
    for row, entry, expected in (
        ("unsteered", "boolq", {**args, "steered": False}),
        ("heldout", "boolq_heldout", steered),
    ):
        found = json.loads((folder / f"results_{row}.json").read_text())
        values = {k: v for k, v in found["results"]["boolq"].items() if "," in k}
        assert found["results"].keys() == found["configs"].keys() == {"boolq"}
        assert values == {k: v for k, v in result["results"][entry].items() if "," in k}
        assert found["config"]["model_args"] == expected
        assert "sadi_bench" not in found
        assert "|acc" in make_table(found).replace(" ", "")


def test_two_rows_have_different_model_names_so_that_no_tool_takes_one_for_the_other(folder):
    names = {json.loads(file.read_text())["model_name"] for file in folder.glob("results_*.json")}
    assert names == {"tiny-random", "tiny-random, steered by sadi-head"}


def test_a_control_vector_is_the_multiplier_times_the_vector_in_llama_cpps_block(added, place):
    lines = export_run(added, str(place / "vector"))
    steering = Intervention.load(added)
    params = steering.cells[steering.origin.chosen["heldout"]].params
    reader = GGUFReader(place / "vector" / "control_vector.gguf")
    assert reader.get_field("general.architecture").contents() == "controlvector"
    assert reader.get_field("controlvector.model_hint").contents() == "llama"
    assert reader.get_field("controlvector.layer_count").contents() == 1
    assert [tensor.name for tensor in reader.tensors] == [f"direction.{params['layer']}"]
    expected = np.float32(params["multiplier"]) * steering.difference[params["layer"]].numpy()
    assert reader.tensors[0].data.dtype == np.float32
    np.testing.assert_array_equal(reader.tensors[0].data, expected)
    assert any("llama.cpp adds it at every token" in line for line in lines)


def test_layer_0_and_other_methods_have_no_control_vector_and_the_lines_say_why(place, run):
    first = small_run(place, "method=caa", "method.layer=0", "method.multiplier=[-2,4]").path
    lines = export_run(first, str(place / "first"))
    assert any("not written: llama.cpp never steers layer 0" in line for line in lines)
    lines = export_run(run, str(place / "first"))
    assert any("of the methods here only caa does" in line for line in lines)
    assert not (place / "first" / "control_vector.gguf").exists()


def test_a_new_export_leaves_foreign_files_and_takes_away_the_old_vector(added, run, place):
    there = place / "again"
    there.mkdir()
    (there / "notes.txt").write_text("mine")
    export_run(added, str(there))
    assert (there / "control_vector.gguf").exists()
    export_run(run, str(there))
    assert {file.name for file in there.iterdir()} == {*NAMES, "notes.txt"} - {
        "control_vector.gguf"
    }
    assert (there / "notes.txt").read_text() == "mine"


def test_what_was_not_exported_is_never_overwritten(run, tmp_path):
    (tmp_path / "README.md").write_text("# A project of mine\n")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "README.md").write_text("---\na: [\n---\n")
    for place in (tmp_path / "broken", tmp_path, run):
        before = {file: file.read_bytes() for file in place.iterdir() if file.is_file()}
        with pytest.raises(SettingError, match="was not exported by this command"):
            export_run(run, str(place))
        assert before == {file: file.read_bytes() for file in before}
        assert {*place.iterdir()} - {tmp_path / "broken"} == {*before}
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match=r"cannot be written: .*set to="):
        export_run(run, str(tmp_path / "file" / "below"))
    with pytest.raises(SettingError, match="to=: name a folder"):
        export_run(run, "")


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        (("protocol=paper",), "no cell was held out, .*protocol=heldout"),
        (("method=none",), "method none steers nothing"),
        (
            ("method=random-head", "method.draws=2", "method.top_k=1", "method.strength=9"),
            "the mean of 2 random draws.*method.draws=1",
        ),
    ],
)
def test_a_run_without_a_held_out_cell_is_refused_with_a_remedy(place, tmp_path, typed, why):
    path = small_run(place, *typed).path
    with pytest.raises(SettingError, match=why):
        export_run(path, str(tmp_path / "to"))
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("typed", "load"),
    [
        (("model=custom", "model.pretrained=secret/mine"), '"FOLDER", dtype='),
        (("method=inferaligner", "method.guide=secret/mine", "method.top_k=2"), '"tiny-random", '),
        (("finetune=sft", "model=custom", "model.pretrained=secret/mine"), '"FOLDER OF THE FINE-'),
    ],
)
def test_no_path_of_this_machine_is_exported(place, tmp_path, monkeypatch, typed, load):
    monkeypatch.setattr(finetune, "cache_folder", lambda: place / "secret" / "cache")
    network, tokenizer = tiny_random(1)
    network.save_pretrained(place / "secret" / "mine")
    tokenizer.save_pretrained(place / "secret" / "mine")
    typed = [word.replace("secret", str(place / "secret")) for word in typed]
    export_run(small_run(place, *typed).path, str(tmp_path / "to"))
    assert not [file for file in (tmp_path / "to").iterdir() if b"secret" in file.read_bytes()]
    assert f"load_model({load}" in (tmp_path / "to" / "README.md").read_text()
    assert Intervention.load(tmp_path / "to").origin.model["source"] in ("mine", "tiny-random")
