"""The engine stands on torch, transformers and numpy alone."""

import subprocess
import sys

ABSENT = ["lm_eval", "datasets", "pandas", "hydra", "omegaconf", "jaxtyping", "beartype", "scipy",
          "sklearn", "pytest"]  # fmt: skip
PROGRAM = """
import sys
sys.modules.update(dict.fromkeys({absent!r}))
import torch
import sadi_bench.models.loading
from sadi_bench.scoring.choices import ChoiceRequest, score_choices
from sadi_bench.steering.activations import EncodedContrast
from sadi_bench.steering.methods.sadi import Sadi
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.models.tiny_random import tiny_random
torch.set_num_threads(1)
lm = LanguageModel("tiny", *tiny_random(0))
intervention = Sadi(top_k=2, strength=3.0).fit(lm, [EncodedContrast((5, 6), (7,), (8,), 0)])
print(score_choices(lm, [ChoiceRequest((5, 6, 7), ((8,), (9,)))], intervention)[0].logprobs.shape)
"""


def test_the_engine_runs_without_the_harness_and_the_tools_of_tests():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(absent=ABSENT)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(2, 2)"
