"""Every network that is loaded is held against its own forward, and refused where we are wrong."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from cases import in_rows, tiny_lm
from sadi_bench.errors import SettingError
from sadi_bench.models.families import FAMILIES, LLAMA
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.loading import beside, load_language_model, resolved
from sadi_bench.models.self_test import LIMITS, gap, self_test, self_tested
from sadi_bench.models.spec import ModelSpec

ROWS = 20  # positions that two prompts with two answers of 3 and of 5 tokens have
DTYPES = pytest.mark.parametrize("dtype", LIMITS, ids=str)


def other_network(name: str, dtype: torch.dtype) -> LanguageModel:
    """A copy of a tiny model whose network may be altered."""
    lm = tiny_lm(name, dtype)
    return dataclasses.replace(lm, network=copy.deepcopy(lm.network))


@DTYPES
def test_every_family_passes(lm, dtype):
    model = tiny_lm(lm.name, dtype)
    found = self_test(model)
    assert found.compared == ROWS
    assert found.relative < LIMITS[dtype] / 3
    assert self_tested(model) is model


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt"])
def test_a_network_whose_branches_run_in_rows_passes(name):
    model = in_rows(tiny_lm(name))
    assert self_tested(model) is model


@DTYPES
@pytest.mark.parametrize("scale", [16.0, 1.25, 1 / 16])
def test_a_logit_scale_that_is_not_known_is_refused(scale, dtype):
    model = other_network("llama", dtype)

    def scaled(_network: nn.Module, _args: tuple, output):
        output.logits = output.logits * scale
        return output

    model.network.register_forward_hook(scaled)
    with pytest.raises(SettingError, match=r"^model=llama: failed the self-test: .* nats .*") as e:
        self_tested(model)
    assert "\n" not in str(e.value)
    assert str(dtype).removeprefix("torch.") in str(e.value)


@DTYPES
@pytest.mark.parametrize("name", ["granite", "cohere"])
def test_the_scale_of_a_family_is_needed(name, dtype):
    model = dataclasses.replace(tiny_lm(name, dtype))
    vars(model)["family"] = LLAMA
    with pytest.raises(SettingError, match="failed the self-test"):
        self_tested(model)


@DTYPES
@pytest.mark.parametrize("ignored", ["position_ids", "attention_mask"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox", "falcon_rotary"])
def test_a_network_that_ignores_positions_or_masks_is_refused(name, ignored, dtype):
    model = other_network(name, dtype)
    model.backbone.register_forward_pre_hook(
        lambda _module, args, kwargs: (args, kwargs | {ignored: None}), with_kwargs=True
    )
    with pytest.raises(SettingError, match="failed the self-test"):
        self_tested(model)


def test_a_network_that_is_no_number_under_our_mask_alone_is_refused():
    model = other_network("llama", torch.float32)

    def spoilt(_module: nn.Module, _args: tuple, kwargs: dict, output):
        if kwargs.get("attention_mask") is not None:
            output.last_hidden_state = output.last_hidden_state * torch.nan
        return output

    model.backbone.register_forward_hook(spoilt, with_kwargs=True)
    with pytest.raises(SettingError, match="failed the self-test"):
        self_tested(model)


def test_a_network_whose_own_logits_overflow_is_loaded_with_a_note():
    """There is nothing to compare with, and its scores are flagged anyway."""
    model = other_network("llama", torch.float16)
    with torch.no_grad():
        model.network.get_output_embeddings().weight.fill_(torch.inf)
    tested = self_tested(model)
    assert tested.network is model.network
    assert tested.notes == ("not self-tested: the log-probabilities of llama overflow in float16",)


def test_positions_at_which_the_network_overflows_are_left_out():
    theirs = torch.tensor([[0.0, -1.0, -3.0], [torch.nan, 0.0, 0.0]])
    ours = torch.tensor([[0.5, -0.5, -2.5], [1.0, 2.0, 3.0]])
    found = gap(ours, theirs)
    assert (found.relative, found.nats, found.compared) == (0.0, 0.5, 1)


def test_the_worst_position_counts():
    theirs = torch.tensor([[0.0, -1.0, -2.0]]).repeat(9, 1)
    ours = theirs.clone()
    ours[4] *= 3
    assert gap(ours, theirs).relative == pytest.approx(2.0)


@pytest.fixture
def unknown_scale(tmp_path, monkeypatch) -> ModelSpec:
    """A Granite on the disk, of whose scale the table of families says nothing."""
    granite = tiny_lm("granite")
    granite.network.save_pretrained(tmp_path / "granite")
    granite.tokenizer.save_pretrained(tmp_path / "granite")
    monkeypatch.setitem(FAMILIES, "granite", LLAMA)
    return ModelSpec(pretrained=str(tmp_path / "granite"), device="cpu", dtype="float32")


def test_loading_refuses_what_fails(unknown_scale):
    with pytest.raises(SettingError, match="^model=granite: failed the self-test"):
        load_language_model(resolved(unknown_scale))


def test_a_second_model_that_fails_is_refused_by_its_setting(unknown_scale):
    refused = pytest.raises(SettingError, match=r"^method\.guide=granite: failed the self-test")
    with refused, beside(unknown_scale, "method.guide"):
        pass
