"""SADI written a second time, slowly: one sequence at a time, no cache, no batch, no packing.

It shares no code with the package. What the engine computes is held against this.
Source: arXiv 2410.12299, equations 1-6, and the released code where the two differ.
"""

import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

Element = tuple[int, int]  # layer, index of the head, neuron or coordinate within it

# Of each choice: summed log-probability, whether every token is the arg-max, the arg-max tokens.
Scored = tuple[list[float], list[bool], list[list[int]]]

# Model type: the list of layers; within one: output projection, FFN non-linearity, MLP output.
GATED = ("model.layers", "self_attn.o_proj", "mlp.act_fn", "mlp")
MODULES: dict[str, tuple[str, str, str, str]] = {
    **dict.fromkeys(["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text"], GATED),
    **dict.fromkeys(["granite", "cohere"], GATED),
    "phi3": ("model.layers", "self_attn.o_proj", "mlp.activation_fn", "mlp"),
    "phi": ("model.layers", "self_attn.dense", "mlp.activation_fn", "mlp"),
    "gpt_neox": ("gpt_neox.layers", "attention.dense", "mlp.act", "mlp"),
    "gpt2": ("transformer.h", "attn.c_proj", "mlp.act", "mlp"),
    "falcon": ("transformer.h", "self_attention.dense", "mlp.act", "mlp"),
    # Bloom adds the residual inside its MLP, so the MLP's own output is its last projection's.
    "bloom": ("transformer.h", "self_attention.dense", "mlp.gelu_impl", "mlp.dense_4h_to_h"),
    # OPT has no MLP module, and flattens batch x seq before these two.
    "opt": ("model.decoder.layers", "self_attn.out_proj", "activation_fn", "fc2"),
}


def site_modules(model: PreTrainedModel, site: str, hidden_site: str) -> list[nn.Module]:
    """List the module that carries the site, one a layer."""
    layers, projection, activation, mlp = MODULES[model.config.model_type]
    hidden = {"mlp_out": mlp, "residual": ""}[hidden_site]
    path = {"head": projection, "neuron": activation, "hidden": hidden}[site]
    return [layer.get_submodule(path) for layer in model.get_submodule(layers)]


def run_once(
    model: PreTrainedModel,
    tokens: Sequence[int],
    site: str,
    hidden_site: str,
    edit: Callable[[int, Tensor], Tensor] | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """Run one sequence; return logits [seq vocab] and the site's values [seq width] a layer.

    `edit` gets a layer and its values and returns what flows on. The values returned are those
    before the edit, copied: Falcon adds the attention output to its MLP's output in place.
    """
    modules = site_modules(model, site, hidden_site)
    seen: list[Tensor] = [torch.empty(0)] * len(modules)

    def visit(layer: int, _module: nn.Module, inputs: tuple, output: Any = None) -> Any:
        carrier = inputs if output is None else output
        if isinstance(carrier, tuple):  # all inputs; the output of Falcon's and Bloom's layers
            return (look(layer, carrier[0]), *carrier[1:])
        return look(layer, carrier)

    def look(layer: int, values: Tensor) -> Tensor:
        seen[layer] = values.detach().reshape(len(tokens), -1).clone()
        return values if edit is None else edit(layer, seen[layer].clone()).reshape(values.shape)

    register = "register_forward_pre_hook" if site == "head" else "register_forward_hook"
    handles = [getattr(at, register)(partial(visit, layer)) for layer, at in enumerate(modules)]
    try:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([list(tokens)]), use_cache=False).logits[0]
    finally:
        for handle in handles:
            handle.remove()
    return logits, seen


def element_width(model: PreTrainedModel, site: str, width: int) -> int:
    """Count the coordinates of one element: head_dim for a head, otherwise one."""
    return width // model.config.num_attention_heads if site == "head" else 1


def mean_difference(
    model: PreTrainedModel, pairs: Sequence[Mapping], site: str, hidden_site: str = "mlp_out"
) -> Tensor:
    """Average A+ - A- of the last token over the pairs: [layer element head_dim-or-1], float64."""
    total = 0.0
    for pair in pairs:
        last = []
        for answer in ("positive_tokens", "negative_tokens"):
            tokens = [*pair["prompt_tokens"], *pair[answer]]
            _, values = run_once(model, tokens, site, hidden_site)
            last.append(torch.stack([layer[-1] for layer in values]).double())
        total = total + (last[0] - last[1])
    mean = total / len(pairs)
    per_element = element_width(model, site, mean.shape[1])
    return mean.reshape(mean.shape[0], -1, per_element)


def element_scores(difference: Tensor, score: str) -> Tensor:
    """Score every element: the mean over its coordinates, then without its sign for `abs`."""
    scores = difference.mean(dim=-1)
    return {"signed": scores, "abs": scores.abs()}[score]


def rank_elements(
    model: PreTrainedModel,
    pairs: Sequence[Mapping],
    site: str,
    score: str = "signed",
    hidden_site: str = "mlp_out",
) -> list[tuple[int, int, float]]:
    """Rank all elements as (layer, index, score), best first; ties to the lower layer, index."""
    scores = element_scores(mean_difference(model, pairs, site, hidden_site), score)
    flat = scores.flatten().tolist()
    order = sorted(range(len(flat)), key=lambda position: (-flat[position], position))
    return [(*divmod(position, scores.shape[1]), flat[position]) for position in order]


def score_document(
    model: PreTrainedModel,
    prompt_tokens: Sequence[int],
    choice_tokens: Sequence[Sequence[int]],
    elements: Sequence[Element],
    strength: float | None,
    site: str,
    patch: str,
    hidden_site: str = "mlp_out",
    reach: str = "last_prompt",
    delta_vector: Tensor | Mapping[Element, Tensor] | None = None,
    same_norm: bool = False,
) -> Scored:
    """Score each choice under SADI.

    `delta_vector[layer, index]` is D of that element (eq. 6): A + (strength - 1) D, not strength A.
    `same_norm` first gives D of all the layer's elements the norm that A has there, token by token.
    """
    last = len(prompt_tokens) - 1
    steered = {"last_prompt": slice(last, last + 1), "from_last_prompt": slice(last, None)}[reach]
    overwrite = {"clean": True, "inflight": False}[patch]

    def edit(clean: Sequence[Tensor], layer: int, values: Tensor) -> Tensor:
        if overwrite:  # in every layer, those without a masked element too
            values[steered] = clean[layer][steered]
        width = element_width(model, site, values.shape[1])
        here = [index for at, index in elements if at == layer]
        places = {index: slice(index * width, (index + 1) * width) for index in here}
        scale = torch.tensor(1.0)
        if same_norm and here:
            own = torch.cat([values[steered, places[index]] for index in here], dim=1)
            vector = torch.cat([delta_vector[layer, index].float() for index in here])
            scale = own.norm(dim=1, keepdim=True) / vector.norm()
        for index, columns in places.items():
            if delta_vector is None:
                values[steered, columns] *= strength
            else:
                shift = scale * delta_vector[layer, index].float()
                values[steered, columns] += (strength - 1) * shift
        return values

    found = []
    for choice in choice_tokens:
        tokens = [*prompt_tokens, *choice]
        logits, clean = run_once(model, tokens, site, hidden_site)
        if elements and strength is not None:
            logits, _ = run_once(model, tokens, site, hidden_site, partial(edit, clean))
        found.append(read_choice(logits[last:-1], choice))
    return tuple(map(list, zip(*found, strict=True)))


def score_edited(
    model: PreTrainedModel,
    prompt_tokens: Sequence[int],
    choice_tokens: Sequence[Sequence[int]],
    edit: Callable[[int, Tensor, int], Tensor],
    site: str = "hidden",
    hidden_site: str = "residual",
) -> Scored:
    """Score each choice as `score_document` does, under any edit.

    `edit` gets a layer, its values [seq width] and the place of the last prompt token.
    """
    last = len(prompt_tokens) - 1
    found = []
    for choice in choice_tokens:
        tokens = [*prompt_tokens, *choice]
        logits, _ = run_once(
            model, tokens, site, hidden_site, lambda layer, values: edit(layer, values, last)
        )
        found.append(read_choice(logits[last:-1], choice))
    return tuple(map(list, zip(*found, strict=True)))


def score_calibrated(
    model: PreTrainedModel,
    prompt_tokens: Sequence[int],
    choice_tokens: Sequence[Sequence[int]],
    constants: Sequence[float],
) -> Scored:
    """Score each choice of the unsteered model, a constant added to each.

    In the vocabulary a token that continues choices gets the largest of their constants, less what
    the choices that begin so got before; all choices together get none.
    """

    def share(beginning: list[int]) -> float:
        pairs = zip(choice_tokens, constants, strict=True)
        among = [c for choice, c in pairs if list(choice[: len(beginning)]) == beginning]
        return 0.0 if len(among) == len(choice_tokens) else max(among)

    last, found = len(prompt_tokens) - 1, []
    for choice, constant in zip(choice_tokens, constants, strict=True):
        tokens = torch.tensor([[*prompt_tokens, *choice]])
        with torch.no_grad():
            logits = model(input_ids=tokens, use_cache=False).logits[0, last:-1]
        logprob, _, _ = read_choice(logits, choice)
        for step in range(len(choice)):
            said = list(choice[:step])
            following = {c[step] for c in choice_tokens if list(c[:step]) == said and c[step:]}
            for token in following:
                logits[step, token] += share([*said, token]) - share(said)
        found.append((logprob + constant, *read_choice(logits, choice)[1:]))
    return tuple(map(list, zip(*found, strict=True)))


def read_choice(logits: Tensor, choice: Sequence[int]) -> tuple[float, bool, list[int]]:
    """Read one choice off the logits [step vocab] that predict its tokens, as `Scored` has it."""
    predictions = torch.log_softmax(logits.double(), dim=-1)
    logprob = predictions[torch.arange(len(choice)), list(choice)].sum().item()
    predicted = logits.argmax(dim=-1).tolist()
    return logprob, predicted == list(choice), predicted


def matches(predicted_text: str, gold_text: str) -> bool:
    """Compare as the released code does: the rule of PAPER.md, section 1."""
    text = predicted_text.strip()
    text = text.replace(".</s>", "").replace(".\n", "").replace(".", "").replace(";", "")
    text = text.replace("!", "").replace(",", "").replace("?", "").replace("\n", "")
    text = text.replace("</s>", "").replace("<pad>", "")
    return text.lower() == gold_text.strip().lower()


def read_jsonl(path: Path) -> list[dict]:
    """Read one JSON object a line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def check_ranking(table: pd.DataFrame, scores: Tensor, ranked: bool, tolerance: float) -> dict:
    """Compare a run's elements with our scores [layer element].

    A rank where the two elements' scores are within `tolerance` x the largest is a tie.
    """
    flat = torch.tensor((table.layer * scores.shape[1] + table["index"]).to_numpy())
    mine = scores.flatten()[flat]
    report = {
        "max_score_difference": (torch.tensor(table.score.to_numpy()) - mine).abs().max().item()
    }
    if ranked:
        best = scores.flatten().sort(descending=True, stable=True)
        differs = best.indices[: len(flat)] != flat
        apart = (best.values[: len(flat)] - mine).abs() > tolerance * scores.abs().max()
        report["ranks_checked"] = len(flat)
        report["ranks_differing"] = int(differs.sum())
        report["ranks_differing_beyond_ties"] = int((differs & apart).sum())
    return report


def sample(values: Sequence, count: int | None, seed: int) -> list:
    """Draw `count` values without replacement, or all of them for None."""
    if count is None or count >= len(values):
        return list(values)
    return random.Random(seed).sample(list(values), count)


def check_run(
    run_dir: str | Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    n_docs: int | None = 10,
    n_cells: int | None = 5,
    seed: int = 0,
    tie_tolerance: float = 1e-5,
) -> dict:
    """Recompute a finished run's ranking, and cell 0 and `n_cells` others of `n_docs` documents."""
    run_dir = Path(run_dir)
    method = yaml.safe_load((run_dir / "config.yaml").read_text(encoding="utf-8"))["method"]
    site, hidden_site = method["site"], method.get("hidden_site") or "mlp_out"
    difference = mean_difference(model, read_jsonl(run_dir / "pairs.jsonl"), site, hidden_site)
    table = pd.read_csv(run_dir / "elements.csv").sort_values("rank")
    scores = element_scores(difference, method.get("score", "signed"))
    ranked = method.get("elements", "top") == "top"
    report = check_ranking(table, scores, ranked, tie_tolerance)
    report |= {"rows_checked": 0, "max_logprob_difference": 0.0, "decisions_differing": 0}
    report |= {"finite_differing": 0, "disagreements": []}

    rows = read_jsonl(run_dir / "docs.jsonl")
    documents = {(str(row["split"]), str(row["doc_id"])): row for row in rows}
    grid = pd.read_parquet(run_dir / "grid.parquet")
    cells = sorted(set(grid.cell.tolist()) - {0})
    grid = grid[grid.cell.isin([0, *sample(cells, n_cells, seed)])]
    wanted = set(sample(sorted(documents), n_docs, seed))
    for row in grid.itertuples():
        key = str(row.split), str(row.doc_id)
        if key not in wanted:
            continue
        steered = row.cell != 0
        document = documents[key]
        gold = document["gold"]
        logprobs, greedy, predicted = score_document(
            model,
            document["prompt_tokens"],
            document["choice_tokens"],
            masked_elements(run_dir, table, row) if steered else [],
            float(row.strength) if steered else None,
            site,
            method.get("patch", "clean"),
            hidden_site,
            method.get("reach", "last_prompt"),
            difference if method.get("vector", "adaptive") != "adaptive" else None,
            method.get("vector") == "fixed_norm",
        )
        said = tokenizer.decode(predicted[gold], skip_special_tokens=True)
        right = tokenizer.decode(document["choice_tokens"][gold], skip_special_tokens=True)
        decisions = {
            "acc": logprobs.index(max(logprobs)) == gold,  # a tie goes to the first choice
            "exact_match": greedy[gold],
            "paper_match": matches(said, right),
            "predicted": said,
        }
        compare_row(report, row, logprobs, decisions)
    return report


def masked_elements(run_dir: Path, table: pd.DataFrame, row: Any) -> list[Element]:
    """List a cell's elements; of several random draws elements.csv lists the first alone."""
    if hasattr(row, "draw"):
        ranks = load_file(run_dir / "steering.safetensors")["element_ranks"][int(row.draw) - 1]
        return [(layer, index) for layer, index in (ranks < int(row.top_k)).nonzero().tolist()]
    top = table.head(int(row.top_k))
    return list(zip(top.layer.tolist(), top["index"].tolist(), strict=True))


def compare_row(
    report: dict, row: Any, logprobs: Sequence[float], decisions: Mapping[str, object]
) -> None:
    """Add one row of the grid to the report; the rest counts only where both sides are finite."""
    report["rows_checked"] += 1
    where = (row.split, row.doc_id, int(row.cell))
    finite = all(map(math.isfinite, logprobs))
    if finite != bool(row.finite):
        report["finite_differing"] += 1
        report["disagreements"].append((*where, "finite", bool(row.finite), finite))
    if not (finite and row.finite):
        return
    gaps = [abs(float(a) - b) for a, b in zip(row.choice_logprobs, logprobs, strict=True)]
    report["max_logprob_difference"] = max(report["max_logprob_difference"], *gaps)
    for name, ours in decisions.items():
        if getattr(row, name) != ours:
            report["decisions_differing"] += 1
            report["disagreements"].append((*where, name, getattr(row, name), ours))
