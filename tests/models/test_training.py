"""One step of the training, recomputed by hand in plain torch."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from sadi_bench.models.spec import FinetuneSpec, LoraSpec
from sadi_bench.models.training import answer_batch, train, with_adapters
from tiny import TINY

EXAMPLES = [((5, 6, 7), (8,)), ((9, 10, 11, 12, 13), (14, 15, 16)), ((17,), (18, 19)),
            ((20, 21), (22,))]  # fmt: skip
ONE_STEP = FinetuneSpec("sft", learning_rate=1e-3, epochs=1, batch_size=4, schedule="constant")


def trained(
    network: PreTrainedModel, spec: FinetuneSpec, folder: Path
) -> tuple[PreTrainedModel, list[float]]:
    return train(
        network, EXAMPLES, spec, name="tiny", seed=0, folder=folder, device="cpu", autocast=False
    )


def loss_by_hand(network: PreTrainedModel) -> torch.Tensor:
    """Each prompt alone, without padding: the mean over the answers' tokens."""
    losses = []
    for prompt, answer in EXAMPLES:
        logits = network(torch.tensor([[*prompt, *answer]])).logits[0]
        for place, token in enumerate(answer, start=len(prompt) - 1):
            losses.append(cross_entropy(logits[place], torch.tensor(token)))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("name", ["llama", "bloom", "gpt2", "falcon_alibi"])
def test_the_first_loss_is_that_of_the_answers_tokens_alone(name, tmp_path):
    expected = loss_by_hand(TINY[name]()).item()
    _, losses = trained(TINY[name](), ONE_STEP, tmp_path)
    assert losses == [pytest.approx(expected, rel=1e-5)]


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_one_step_equals_adamw_by_hand(decay, tmp_path):
    network = TINY["llama"]()
    loss_by_hand(network).backward()
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    assert norm > 1  # or clipping would not be seen
    expected = {}
    for name, weight in network.named_parameters():
        # The first step's moments, corrected for their start: the gradient and its square.
        step = weight.grad / (weight.grad.abs() + 1e-8)
        kept = 1 - 1e-3 * (0.0 if "norm" in name else decay)
        expected[name] = weight.detach() * kept - 1e-3 * step
    spec = FinetuneSpec(**{**vars(ONE_STEP), "weight_decay": decay})
    after, _ = trained(TINY["llama"](), spec, tmp_path)
    before = dict(TINY["llama"]().named_parameters())
    for name, weight in after.named_parameters():
        # Where a gradient is nearly 0 its sign is rounding's; elsewhere a step is 1e-3.
        close = (weight - expected[name]).abs() < 2e-5
        assert close.float().mean() > 0.99, name
        assert not torch.equal(weight, before[name]), name


def test_padding_is_masked_and_prompts_have_no_labels():
    batch = answer_batch(EXAMPLES[:2])
    assert batch["input_ids"].tolist() == [
        [5, 6, 7, 8, 0, 0, 0, 0],
        [9, 10, 11, 12, 13, 14, 15, 16],
    ]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 0, 0, 0, 0], [1] * 8]
    none = -100
    assert batch["labels"].tolist() == [
        [none, none, none, 8, none, none, none, none],
        [none] * 5 + [14, 15, 16],
    ]


@pytest.mark.parametrize(("schedule", "rates"), [("constant", 3), ("linear", 1 + 2 / 3 + 1 / 3)])
def test_the_schedule_is_heeded(schedule, rates, tmp_path):
    """Adam moves a weight whose gradient keeps its sign by about the learning rate a step."""
    spec = FinetuneSpec("sft", learning_rate=1e-5, epochs=3, schedule=schedule)
    network, _ = trained(TINY["llama"](), spec, tmp_path)
    moved = (network.lm_head.weight - TINY["llama"]().lm_head.weight).abs().median()
    assert moved.item() == pytest.approx(rates * 1e-5, rel=0.1)


@pytest.mark.parametrize("name", ["llama", "bloom", "gpt_neox"])
def test_merged_adapters_give_the_adapter_models_logits(name):
    network, tokens = TINY[name](), torch.tensor([[5, 6, 7, 8]])
    base = network(tokens).logits
    wrapped = with_adapters(network, LoraSpec(rank=2, alpha=4)).eval()
    for parameter_name, parameter in wrapped.named_parameters():
        assert parameter.requires_grad == ("lora_" in parameter_name)
        if "lora_B" in parameter_name:  # zero until it is trained
            torch.nn.init.normal_(parameter, std=0.1)
    adapted = wrapped(tokens).logits
    merged = wrapped.merge_and_unload()
    assert type(merged) is type(TINY[name]())
    assert torch.allclose(merged(tokens).logits, adapted, atol=1e-4)
    assert not torch.allclose(adapted, base, atol=1e-1)


def test_lora_trains_its_adapters_and_gives_back_a_plain_network(tmp_path):
    spec = FinetuneSpec("lora", learning_rate=1e-2, epochs=2, lora=LoraSpec(rank=2))
    network, losses = trained(TINY["llama"](), spec, tmp_path)
    before = dict(TINY["llama"]().named_parameters())
    after = dict(network.named_parameters())
    assert set(after) == set(before)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.endswith("_proj.weight")}
    assert losses[1] < losses[0]
