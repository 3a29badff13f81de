"""Tiny models for the tests of the engine; cases.py makes what they are asked."""

import uuid

import jaxtyping
import pytest
import torch

from cases import tiny_lm
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.steering import cache
from tiny import TINY

# Tiny matrices gain nothing from threads, and where tests share the cores threads wait: 300 times
# slower.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def activations_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("activations")


@pytest.fixture(scope="session", autouse=True)
def none_of_the_users_activations(activations_folder):
    """Give fixtures of a module or a session one folder: they are made before `own_activations`.

    The user's cache may hold activations that were computed with another number of threads. Their
    last digits differ.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "cache_folder", lambda: activations_folder / "modules")
        yield


@pytest.fixture(autouse=True)
def own_activations(monkeypatch, activations_folder):
    """Read no activations that another test, or the user, left in the cache."""
    folder = activations_folder / uuid.uuid4().hex
    monkeypatch.setattr(cache, "cache_folder", lambda: folder)


@pytest.fixture(scope="session", params=TINY)
def lm(request) -> LanguageModel:
    """One tiny model of every family and variant in turn."""
    return tiny_lm(request.param)


@pytest.fixture(scope="session")
def llama() -> LanguageModel:
    return tiny_lm("llama")


@pytest.fixture
def types_unchecked():
    """What a user types has any type; without the tests' tools it comes as far as the settings."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
