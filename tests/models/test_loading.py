"""Loading from memory and folders, and what a user is told where it fails."""

import gc
import logging
import weakref

import pytest
import torch
from transformers import AutoConfig

from cases import plain_logits, tiny_lm
from sadi_bench.errors import SettingError
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.loading import Models, folder_fingerprint, load_language_model, resolved
from sadi_bench.models.spec import ModelSpec

CPU = {"device": "cpu", "dtype": "float32"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    llama = tiny_lm("llama")
    llama.network.save_pretrained(path)
    llama.tokenizer.save_pretrained(path)
    return path


def load(**settings) -> LanguageModel:
    return load_language_model(resolved(ModelSpec(**settings)))


def test_auto_is_resolved_where_a_model_is_loaded():
    """dtype, device and name of a spec are `auto` and null until then."""
    lm = load_language_model(ModelSpec(pretrained="tiny-random"))
    assert (lm.name, lm.source, lm.chat) == ("tiny-random", "tiny-random", False)
    assert str(lm.dtype).removeprefix("torch.") == resolved(ModelSpec(pretrained="x")).dtype


def one_line(error: pytest.ExceptionInfo) -> bool:
    return "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_local_folder_gives_back_the_model_that_was_saved(folder, dtype):
    loaded = load(name="mine", pretrained=str(folder), device="cpu", dtype=dtype)
    original = tiny_lm("llama")
    assert loaded.dtype == getattr(torch, dtype)
    assert loaded.notes == (f"{dtype} on cpu",)
    assert not loaded.network.training
    weights = loaded.network.state_dict()
    for name, value in original.network.state_dict().items():
        assert torch.equal(weights[name], value.to(loaded.dtype)), name
    if dtype == "float32":
        assert torch.equal(plain_logits(loaded, (5, 6, 7)), plain_logits(original, (5, 6, 7)))
    text = "Answer:\n yes"
    assert loaded.encode(text) == original.encode(text)


def test_tiny_random_is_the_same_for_the_same_seed():
    def logits(seed: int) -> torch.Tensor:
        return plain_logits(load(pretrained="tiny-random", seed=seed, **CPU), (5, 6, 7))

    torch.manual_seed(1)
    first = logits(0)
    state = torch.get_rng_state()
    assert not torch.equal(logits(1), first)
    assert torch.equal(logits(0), first)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_runs_of_a_sweep_share_one_model_and_hold_no_second(folder):
    mine = {"pretrained": str(folder), **CPU}
    models = Models()
    first = models.load(ModelSpec(**mine))
    assert models.load(ModelSpec(**mine)) is first
    network = weakref.ref(first.network)
    assert models.load(ModelSpec(**mine | {"dtype": "bfloat16"})).dtype == torch.bfloat16
    del first
    gc.collect()
    assert network() is None


def test_a_family_without_a_4d_mask_is_said_to_run_in_rows(tmp_path):
    tiny_lm("bloom").network.save_pretrained(tmp_path)
    tiny_lm("bloom").tokenizer.save_pretrained(tmp_path)
    notes = load(pretrained=str(tmp_path), **CPU).notes
    assert notes[1:] == ("bloom takes no 4-D mask: cells run in rows, not packed",)


def test_auto_is_resolved_to_what_this_machine_gets():
    spec = resolved(ModelSpec(pretrained="tiny-random"))
    assert spec.dtype in ("float32", "bfloat16")
    assert torch.empty(0, device=spec.device).device.type == spec.device.partition(":")[0]
    assert resolved(spec) == spec


@pytest.mark.parametrize(("amx", "avx512", "dtype"), [(True, False, "bfloat16"),
                         (False, True, "bfloat16"), (False, False, "float32")])  # fmt: skip
def test_auto_takes_bfloat16_where_the_processor_multiplies_it(monkeypatch, amx, avx512, dtype):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    assert resolved(ModelSpec(pretrained="tiny-random", device="cpu")).dtype == dtype
    assert (
        resolved(ModelSpec(pretrained="tiny-random", device="cpu", dtype="float16")).dtype
        == "float16"
    )


def test_an_unknown_dtype_is_refused():
    with pytest.raises(SettingError, match=r"model\.dtype=int8: choose auto, float32") as caught:
        resolved(ModelSpec(pretrained="tiny-random", dtype="int8"))
    assert one_line(caught)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(
        SettingError, match=rf"model\.device={device}.*choose auto or cpu"
    ) as caught:
        resolved(ModelSpec(pretrained="tiny-random", device=device))
    assert one_line(caught)


def test_a_device_that_is_none_is_refused():
    with pytest.raises(SettingError, match=r"model\.device=gpu.*choose auto or cpu") as caught:
        resolved(ModelSpec(pretrained="tiny-random", device="gpu"))
    assert one_line(caught)


def test_no_name_at_all_is_refused():
    with pytest.raises(SettingError, match=r"model\.pretrained is not set.*smollm2-135m"):
        load(**CPU)


@pytest.mark.parametrize("name", ["/no/where", "./nowhere", "nobody/nothing"])
def test_a_model_that_cannot_be_had_says_what_to_set_instead(name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SettingError) as caught:
        load(pretrained=name, **CPU)
    message = str(caught.value)
    assert message.startswith(f"model.pretrained={name}: ")
    assert ("not in the local cache" in message) == (name == "nobody/nothing")
    assert "model=smollm2-135m" in message
    assert one_line(caught)


def test_a_folder_of_an_unknown_family_is_refused_before_its_weights_are_read(tmp_path):
    AutoConfig.for_model("mpt").save_pretrained(tmp_path)
    with pytest.raises(SettingError, match="model type 'mpt' has no family"):
        load(pretrained=str(tmp_path), **CPU)


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(SettingError, match="does not load") as caught:
        load(pretrained=str(tmp_path), **CPU)
    assert one_line(caught)


def test_truncated_weights_are_refused(folder, tmp_path):
    for file in folder.iterdir():
        content = file.read_bytes()
        cut = len(content) // 2 if file.suffix == ".safetensors" else len(content)
        (tmp_path / file.name).write_bytes(content[:cut])
    with pytest.raises(SettingError, match="does not load") as caught:
        load(pretrained=str(tmp_path), **CPU)
    assert one_line(caught)


def test_loading_writes_nothing_where_nobody_looks(folder, capfd):
    load(pretrained=str(folder), **CPU)
    logging.shutdown()
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_a_local_models_fingerprint_changes_with_its_files(folder, tmp_path):
    assert folder_fingerprint("nobody/nothing") == folder_fingerprint(None) == ""
    (tmp_path / "config.json").write_text("{}")
    first = folder_fingerprint(str(tmp_path))
    assert first != folder_fingerprint(str(folder))
    assert len(first) == 64
