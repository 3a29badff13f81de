"""to=hub:OWNER/NAME: one commit to a hub on this machine; what the hub refuses is one line."""

import pytest

from hub_server import hub_on_this_machine
from sadi_bench.errors import SettingError
from sadi_bench.results.exporting import NAMES, export_run
from terminal import place_of_runs, small_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run with a control vector and one without."""
    for folder in place_of_runs(tmp_path_factory.mktemp("runs")):
        added = small_run(folder, "method=caa", "method.layer=1", "method.multiplier=[-2,4]")
        yield added.path, small_run(folder).path


@pytest.fixture
def hub(monkeypatch):
    with hub_on_this_machine() as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.address)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_mine")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield hub


def test_a_repository_gets_the_files_of_a_folder(hub, runs, tmp_path):
    lines = export_run(runs[0], "hub:me/steering")
    assert lines[-1] == f"uploaded to {hub.address}/me/steering"
    export_run(runs[0], str(tmp_path))
    assert hub.repositories["me/steering"] == {
        file.name: file.read_bytes() for file in tmp_path.iterdir()
    }
    assert hub.tokens == {"Bearer hf_mine"}


def test_a_second_export_replaces_the_first_and_leaves_other_files(hub, runs):
    export_run(runs[0], "hub:me/steering")
    hub.cards["me/steering"] = {"library_name": "sadi-bench"}
    hub.repositories["me/steering"]["notes.txt"] = b"mine"
    export_run(runs[1], "hub:me/steering")
    assert hub.repositories["me/steering"].keys() == {*NAMES, "notes.txt"} - {"control_vector.gguf"}


def test_a_repository_of_something_else_is_not_overwritten(hub, runs):
    hub.repositories["me/model"] = {"README.md": b"# mine", "model.safetensors": b""}
    with pytest.raises(SettingError, match="README.md is there and was not exported"):
        export_run(runs[0], "hub:me/model")
    assert hub.repositories["me/model"]["README.md"] == b"# mine"


def test_what_the_hub_does_not_take_is_one_line(hub, runs):
    hub.refusal = "model-index is not an array"
    with pytest.raises(SettingError, match="the hub refuses .*model-index is not an array"):
        export_run(runs[0], "hub:me/steering")
    assert hub.repositories["me/steering"] == {}


@pytest.mark.parametrize("name", ["steering", "a/b/c", "me/a name", "/me", ""])
def test_a_name_that_no_repository_has_is_refused(name, runs):
    with pytest.raises(SettingError, match="OWNER/NAME"):
        export_run(runs[0], f"hub:{name}")


def test_without_a_token_the_line_says_which_variable_to_set(hub, runs, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(SettingError, match="HF_TOKEN"):
        export_run(runs[0], "hub:me/steering")
    assert hub.repositories == {}


def test_offline_the_line_says_so(runs, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SettingError, match="HF_HUB_OFFLINE is set; export to a folder"):
        export_run(runs[0], "hub:me/steering")
