"""steering.safetensors: saved, loaded in a new process, refused where it does not fit."""

import json
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cases import contrasts, requests_for, tiny_lm
from sadi_bench.errors import SettingError
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.scoring.choices import ChoiceRequest, score_choices
from sadi_bench.stages import fit_pairs
from sadi_bench.steering.intervention import UNSTEERED_MODEL, Intervention
from sadi_bench.steering.methods import method_of
from sadi_bench.steering.origin import check_model, check_network
from tiny import build

METHODS = {
    "sadi": {"top_k": [2, 5], "strength": [3.0, -2.0]},
    "sadi-random": {"kind": "sadi", "elements": "random", "draws": 3, "top_k": 4},
    "sadi-fixed": {"kind": "sadi", "vector": "fixed_norm", "site": "neuron", "top_k": 7},
    "caa": {"layer": [0, 2], "multiplier": [1.0, -4.0]},
    "iti": {"top_k": [2, 3], "alpha": 9.0},
    "hpr": {"top_k": [1, 2]},
    "inferaligner": {"top_k": 2, "alpha": [4.0, -4.0]},
    "tda": {"threshold": [0.5, 1.5]},
    "calibrate": {"bias": "prior", "scale": [1.0, 2.0]},
    "none": {},
}
SCORER = """
import sys
import numpy as np
from pathlib import Path
from cases import contrasts, requests_for, tiny_lm
from sadi_bench.scoring.choices import score_choices
from sadi_bench.steering.intervention import Intervention
import torch
torch.set_num_threads(1)
from steering.test_artefact import asked
folder = Path(sys.argv[1])
for file in folder.glob("*.safetensors"):
    scores = score_choices(tiny_lm("llama"), asked(), Intervention.load(file))
    np.savez(file.with_suffix(".npz"), *[score.logprobs for score in scores])
"""


def fitted(name: str, model: str = "llama") -> Intervention:
    settings = {"kind": name, "name": name, **METHODS[name]}
    return fit_pairs(method_of(settings), settings, tiny_lm(model), contrasts(8), "toys")


def asked() -> list[ChoiceRequest]:
    """Ask for the answers that the pairs have, which calibration knows alone."""
    answers = tuple(dict.fromkeys(p.positive for p in contrasts(8)))
    return [ChoiceRequest(request.prompt, answers) for request in requests_for("llama")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    for name in METHODS:
        fitted(name).save(folder / f"{name}.safetensors")
    return folder


@pytest.fixture(scope="module")
def elsewhere(folder) -> Path:
    """Score all files in another process."""
    tests = Path(__file__).parents[1]
    environment = {"PYTHONPATH": f"{tests}:{tests.parent / 'src'}", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", SCORER, str(folder)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", METHODS)
def test_what_was_saved_scores_the_same_in_a_new_process_bit_for_bit(name, elsewhere):
    ours = score_choices(tiny_lm("llama"), asked(), fitted(name))
    with np.load(elsewhere / f"{name}.npz") as theirs:
        assert len(theirs.files) == len(ours)
        for score, key in zip(ours, theirs.files, strict=True):
            np.testing.assert_array_equal(score.logprobs, theirs[key])


@pytest.mark.parametrize("name", METHODS)
def test_loading_gives_back_every_field(name, folder):
    saved, loaded = fitted(name), Intervention.load(folder / f"{name}.safetensors")
    assert type(loaded) is type(saved)
    assert loaded.origin == saved.origin
    assert (loaded.cells, loaded.site, loaded.reach) == (saved.cells, saved.site, saved.reach)
    assert loaded.overwrites == saved.overwrites
    assert loaded.elements() == saved.elements()
    assert set(loaded.tensors()) == set(saved.tensors())
    for key, tensor in saved.tensors().items():
        assert torch.equal(loaded.tensors()[key], tensor)


def test_the_file_says_which_method_and_model_it_comes_from(folder):
    with safe_open(folder / "caa.safetensors", framework="pt") as file:
        facts = json.loads(file.metadata()["sadi_bench"])
    assert facts["schema"] == 1
    assert facts["origin"]["method"]["kind"] == "caa"
    assert facts["origin"]["method"]["layer"] == [0, 2]
    assert facts["origin"]["task"] == "toys"
    assert facts["origin"]["model"]["digest"] == tiny_lm("llama").digest
    assert facts["origin"]["model"]["widths"]["neuron"] == 48
    assert facts["cells"][1] == [{"layer": 0, "multiplier": 1.0}, 1]
    assert facts["origin"]["versions"]["torch"] == torch.__version__


def test_the_same_steering_makes_the_same_bytes(folder, tmp_path):
    fitted("sadi").save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (
        folder / "sadi.safetensors"
    ).read_bytes()


def test_another_models_steering_is_refused_in_one_line(folder):
    loaded = Intervention.load(folder / "sadi.safetensors")
    check_model(loaded.origin, tiny_lm("llama"))
    check_network(loaded.origin, tiny_lm("llama").network)
    other = LanguageModel("other", build("llama", seed=5), tiny_lm("llama").tokenizer)
    with pytest.raises(SettingError, match=r"learnt from llama \(digest .*other has digest"):
        check_model(loaded.origin, other)
    with pytest.raises(SettingError, match=r"learnt from llama \(model_type llama\)"):
        check_network(loaded.origin, tiny_lm("gpt2").network)


def test_the_digest_is_the_same_in_bfloat16_and_another_after_training():
    plain, half = tiny_lm("qwen2"), tiny_lm("qwen2", torch.bfloat16)
    assert plain.digest == half.digest
    trained = LanguageModel("trained", build("qwen2"), plain.tokenizer)
    with torch.no_grad():
        trained.network.lm_head.weight += 0.01
    assert trained.digest != plain.digest


def test_what_was_made_by_hand_names_no_model_and_is_not_saved(tmp_path):
    with pytest.raises(SettingError, match="made by hand"):
        UNSTEERED_MODEL.save(tmp_path / "none.safetensors")


def test_cells_are_found_by_number_or_by_the_row_that_chose_them():
    steering = fitted("caa")
    chosen = replace(steering, origin=replace(steering.origin, chosen={"heldout": 3}))
    assert [chosen.cell_of(cell) for cell in ("heldout", 2, "4", 0)] == [3, 2, 4, 0]
    with pytest.raises(SettingError, match=r"cell=heldout: .*known: none"):
        steering.cell_of("heldout")
    with pytest.raises(SettingError, match="cell=5: the grid has 5 cells"):
        chosen.cell_of(5)


def test_one_cell_alone_scores_as_in_the_grid():
    steering = fitted("sadi")
    whole = score_choices(tiny_lm("llama"), asked(), steering)
    alone = score_choices(tiny_lm("llama"), asked(), steering.only(3))
    for one, all_cells in zip(alone, whole, strict=True):
        np.testing.assert_allclose(one.logprobs[:, 1], all_cells.logprobs[:, 3], atol=1e-5)
    assert steering.only(0).cells == steering.cells[:1]


def changed(file: Path, to: Path, change) -> Path:
    """Write a copy of a file with its facts or tensors changed."""
    with safe_open(file, framework="pt") as opened:
        facts = json.loads(opened.metadata()["sadi_bench"])
    tensors = load_file(file)
    facts = change(facts, tensors) or facts
    save_file(tensors, to, metadata={"sadi_bench": json.dumps(facts)})
    return to


def _set(*path_and_value):
    *path, last, value = path_and_value

    def change(facts, _tensors):
        for key in path:
            facts = facts[key]
        facts[last] = value

    return change


def _tensor(name, make):
    def change(_facts, tensors):
        tensors[name] = make(tensors[name])

    return change


HOSTILE = {
    "schema": (_set("schema", 2), "of schema 2, and this version reads 1"),
    "no schema": (lambda *_: [1], "of schema None"),
    "kind": (_set("origin", "method", "kind", "os.system"), "method.kind=os.system: unknown"),
    "path kind": (_set("origin", "method", "kind", "../../evil"), "unknown"),
    "site": (_set("site", "keys"), "damaged.*'keys' is not a valid Site"),
    "cells": (_set("cells", []), "damaged.*cell 0"),
    "code in a cell": (_set("cells", 1, 0, "top_k", "__import__('os')"), "damaged.*top_k is no n"),
    "nan in a cell": (_set("cells", 1, 0, "strength", float("nan")), "damaged.*not finite"),
    "cell 0 edits": (_set("cells", 0, [{"top_k": 2, "strength": 3.0}, 0]), "damaged.*cell 0"),
    "chosen": (_set("origin", "chosen", {"heldout": 99}), "damaged.*grid does not have"),
    "a field more": (_set("fields", "evil", 1), "damaged.*fields"),
    "a wrong word": (_set("fields", "vector", "sideways"), "vector=sideways"),
    "no model": (_set("origin", "model", {}), "damaged"),
    "layers": (_set("origin", "model", "layers", 9), "damaged.*shape"),
    "huge": (_set("origin", "model", "layers", 1 << 40), "damaged.*size"),
    "shape": (_tensor("mean_difference", lambda t: t[:, :-1].contiguous()), "damaged.*shape"),
    "nan": (_tensor("mean_difference", lambda t: t * torch.nan), "damaged.*not finite"),
    "a tensor more": (lambda _f, t: t.update(evil=torch.ones(1)) or None, "damaged.*evil"),
    "a tensor less": (lambda _f, t: t.pop("element_ranks") is None, "damaged.*no tensor"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_or_damaged_file_is_one_line(name, folder, tmp_path):
    change, message = HOSTILE[name]
    file = changed(folder / "sadi.safetensors", tmp_path / "bad.safetensors", change)
    with pytest.raises(SettingError, match=message) as caught:
        Intervention.load(file)
    assert str(caught.value).startswith(f"steering={file}: ")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_draw_that_the_ranks_do_not_have_is_refused(folder, tmp_path):
    file = changed(
        folder / "sadi-random.safetensors", tmp_path / "bad.safetensors",
        _set("cells", 1, 0, "draw", 9),
    )  # fmt: skip
    with pytest.raises(SettingError, match="damaged"):
        Intervention.load(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged"),
        (b"\x80\x04N.", "damaged"),  # a pickle
        (struct.pack("<Q", 1 << 60) + b"{}", "damaged"),
        (None, "cut"),
    ],
    ids=["empty", "pickle", "huge header", "cut off"],
)
def test_what_is_no_safetensors_file_is_one_line(content, message, folder, tmp_path):
    file = tmp_path / "bad.safetensors"
    whole = (folder / "sadi.safetensors").read_bytes()
    file.write_bytes(whole[:-40] if content is None else content)
    with pytest.raises(SettingError, match="damaged" if message == "cut" else message):
        Intervention.load(file)


def test_a_file_of_another_program_or_none_is_one_line(tmp_path):
    save_file({"x": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(SettingError, match="damaged, or no steering of sadi-bench"):
        Intervention.load(tmp_path / "other.safetensors")
    with pytest.raises(SettingError, match="no such file"):
        Intervention.load(tmp_path / "absent.safetensors")
