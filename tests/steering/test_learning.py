"""What every method that learns from pairs keeps to: no overflow is learnt from, and no float64."""

import copy
import dataclasses

import pytest
import torch

from cases import contrasts, tiny_lm
from far_device import FarDevice
from sadi_bench.errors import SettingError
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.steering import cache
from sadi_bench.steering.activations import EncodedContrast
from sadi_bench.steering.methods.caa import Caa
from sadi_bench.steering.methods.hpr import Hpr
from sadi_bench.steering.methods.inferaligner import InferAligner
from sadi_bench.steering.methods.iti import Iti
from sadi_bench.steering.methods.sadi import Sadi

METHODS = {
    "sadi": Sadi(top_k=1, site="neuron"),
    "sadi-head": Sadi(top_k=1),
    "caa": Caa(layer=0),
    "iti": Iti(top_k=1),
    "hpr": Hpr(top_k=1),
    "inferaligner": InferAligner(top_k=1),
}
SPOILT = 127  # a token that no other pair has
PAIRS = [*contrasts(5), EncodedContrast((5, 6), (7,), (8, SPOILT), 5)]


@pytest.fixture(params=METHODS)
def method(request):
    return METHODS[request.param]


def overflowing(dtype: torch.dtype) -> LanguageModel:
    """A named model whose activations overflow at one token."""
    network = copy.deepcopy(tiny_lm("llama").network).to(dtype)
    with torch.no_grad():
        network.get_input_embeddings().weight[SPOILT] = torch.inf
    return dataclasses.replace(tiny_lm("llama"), network=network, fingerprint=f"spoilt {dtype}")


@pytest.mark.parametrize(
    ("dtype", "remedy"),
    [(torch.float16, r"choose model\.dtype=float32\."), (torch.float32, "choose another model")],
    ids=str,
)
def test_pairs_that_overflow_are_refused_and_not_kept(method, dtype, remedy):
    message = rf"^model\.dtype={str(dtype)[6:]}: activations of llama overflow, .*{remedy}"
    with pytest.raises(SettingError, match=message) as caught:
        method.fit(overflowing(dtype), PAIRS)
    assert "\n" not in str(caught.value)
    assert not list(cache.cache_folder().rglob("*.safetensors"))


def test_pairs_without_the_token_that_overflows_are_learnt_from(method):
    method.fit(overflowing(torch.float16), PAIRS[:-1])


def test_a_guide_that_overflows_is_refused_by_its_name(tmp_path):
    overflowing(torch.float32).network.save_pretrained(tmp_path / "spoilt-guide")
    tiny_lm("llama").tokenizer.save_pretrained(tmp_path / "spoilt-guide")
    method = InferAligner(top_k=1, guide=str(tmp_path / "spoilt-guide"))
    with pytest.raises(SettingError, match=r"activations of spoilt-guide overflow"):
        method.fit(tiny_lm("llama"), PAIRS)


def test_nothing_is_learnt_in_float64_on_the_models_device(method):
    model = tiny_lm("llama")
    with FarDevice(model.network.parameters()) as device:
        method.fit(model, contrasts(5))
    assert device.operations > 100


def test_the_device_of_these_tests_refuses_float64():
    weight = torch.ones(2, requires_grad=True)
    with FarDevice([weight]):
        assert (weight * 2).cpu().double().dtype == torch.float64
        with pytest.raises(AssertionError, match="float64 on the device"):
            (weight * 2).double()
        with pytest.raises(AssertionError, match="float64 on the device"):
            torch.ones(2).double().to(weight.device)
