"""Tiny networks for the judges; nothing of a user's cache, data or hub."""

from pathlib import Path

import pytest
import torch
from judge_cases import write_bert

from sadi_bench.models.tiny_random import tiny_random


@pytest.fixture(autouse=True)
def nothing_of_the_users(tmp_path, monkeypatch):
    monkeypatch.setenv("SADI_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SADI_BENCH_DATA", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("sadi_bench.scoring.judges.choosing.hub_answers", lambda: False)
    monkeypatch.setattr("sadi_bench.scoring.judges.origins.hub_answers", lambda: False)


@pytest.fixture(scope="session")
def bert(tmp_path_factory) -> Path:
    """A folder with a random BERT of 24 positions, and its tokenizer of whole words."""
    return write_bert(tmp_path_factory.mktemp("bert"), num_labels=2)


@pytest.fixture(scope="session")
def two_judges(tmp_path_factory) -> dict[str, str]:
    """Folders of two random language models that have a token for yes and one for no."""
    folders = {}
    for seed, setting in enumerate(("truth", "info")):
        network, tokenizer = tiny_random(seed)
        tokenizer.add_tokens([" yes", " no"])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        folders[setting] = str(tmp_path_factory.mktemp(setting))
        network.save_pretrained(folders[setting])
        tokenizer.save_pretrained(folders[setting])
    return folders
