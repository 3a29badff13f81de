"""SADI's switches: its grid, and one line for every setting that makes no sense."""

import pytest
import torch

from cases import contrasts, tiny_lm
from sadi_bench.errors import SettingError
from sadi_bench.models.families import Site
from sadi_bench.steering.contrast import encode_pairs
from sadi_bench.steering.intervention import UNSTEERED
from sadi_bench.steering.methods import method_of
from sadi_bench.steering.methods.none import Unsteered
from sadi_bench.steering.methods.sadi import Sadi
from sadi_bench.tasks.pairs import ContrastivePair

NAN, INF = float("nan"), float("inf")


@pytest.mark.usefixtures("types_unchecked")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_k": 0}, r"method\.top_k=0: choose a whole number of at least 1"),
        ({"top_k": -3}, r"method\.top_k=-3: "),
        ({"top_k": 2.5}, r"method\.top_k=2\.5: choose a whole number"),
        ({"top_k": [4, 0]}, r"method\.top_k=0: "),
        ({"top_k": True}, r"method\.top_k=True: "),
        ({"top_k": "six"}, r"method\.top_k=six: "),
        ({"top_k": None}, r"method\.top_k=None: "),
        ({"top_k": []}, r"method\.top_k=\[\]: list at least one value"),
        ({"top_k": [2, 2]}, r"method\.top_k=\[2, 2\]: .*none twice"),
        ({"strength": NAN}, r"method\.strength=nan: choose a finite number"),
        ({"strength": [5.0, INF]}, r"method\.strength=inf: choose a finite number"),
        ({"strength": [5, 5.0]}, r"method\.strength=.*none twice"),
        ({"delta": 4.0}, r"method\.strength and method\.delta: give one"),
        ({"strength": None}, r"method\.strength and method\.delta: give one"),
        ({"strength": None, "delta": [1, 1]}, r"method\.delta=\[1, 1\]: .*none twice"),
        ({"patch": "frozen"}, r"method\.patch=frozen: choose one of clean, inflight"),
        ({"site": "residual"}, r"method\.site=residual: choose one of head, neuron, hidden"),
        ({"hidden_site": "mlp"}, r"method\.hidden_site=mlp: "),
        ({"score": "signless"}, r"method\.score=signless: "),
        ({"elements": "all"}, r"method\.elements=all: "),
        ({"vector": "both"}, r"method\.vector=both: "),
        ({"reach": "all_tokens"}, r"method\.reach=all_tokens: "),
        (
            {"elements": "random", "draws": 0},
            r"method\.draws=0: choose a whole number of",
        ),
        ({"elements": "random", "draws": [1, 2]}, r"method\.draws=\[1, 2\]: choose a whole number"),
        ({"draws": 19}, r"method\.draws=19: .*choose 1, or method\.elements=random"),
        ({"match": "layer"}, r"method\.match=layer: .*choose none, or method\.elements=random"),
        ({"elements": "random", "match": "head"}, r"method\.match=head: choose one of none, layer"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_in_one_line(settings, message):
    with pytest.raises(SettingError, match=message) as caught:
        Sadi(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("site", "elements"), [("head", 4), ("neuron", 48), ("hidden", 32)])
def test_more_elements_than_there_are_names_all_three_numbers(llama, site, elements):
    total = 3 * elements
    Sadi(site=site, top_k=total).fit(llama, contrasts())
    numbers = (
        rf"method\.top_k={total + 1}: llama has 3 layers × {elements} .*= {total}.*most {total}"
    )
    with pytest.raises(SettingError, match=numbers) as caught:
        Sadi(site=site, top_k=[1, total + 1]).fit(llama, contrasts())
    assert "\n" not in str(caught.value)


def test_the_grid_is_the_unsteered_cell_and_the_product():
    cells = Sadi(top_k=[2, 4], strength=[5, 10.0]).grid()
    assert cells[0] == UNSTEERED
    assert [cell.index for cell in cells] == [0, 1, 2, 3, 4]
    points = [(cell.params["top_k"], cell.params["strength"]) for cell in cells[1:]]
    assert points == [(2, 5), (2, 10.0), (4, 5), (4, 10.0)]


def test_delta_is_strength_less_one():
    by_delta = Sadi(strength=None, delta=[0, 4]).grid()
    assert by_delta == Sadi(strength=[1, 5]).grid()


def test_random_elements_come_from_the_seed_and_not_from_the_scores(llama):
    def fitted(seed: int, **settings):
        return Sadi(elements="random", seed=seed, top_k=2, **settings).fit(llama, contrasts())

    assert torch.equal(fitted(1).ranks, fitted(1).ranks)
    assert not torch.equal(fitted(1).ranks, fitted(2).ranks)
    assert torch.equal(fitted(1).ranks, fitted(1, score="abs").ranks)
    top = Sadi(top_k=2, seed=1).fit(llama, contrasts())
    assert not torch.equal(fitted(1).ranks, top.ranks)
    assert torch.equal(top.ranks, Sadi(top_k=2, seed=2).fit(llama, contrasts()).ranks)


def test_draws_are_the_outermost_axis_of_the_grid_and_one_draw_is_no_axis():
    cells = Sadi(elements="random", draws=3, top_k=[2, 4], strength=[5, 10]).grid()
    assert len(cells) == 1 + 3 * 4
    assert cells[5].params == {"draw": 2, "top_k": 2, "strength": 5}
    assert [cell.size for cell in cells] == [0, *[1, 2, 3, 4] * 3]
    one = Sadi(elements="random", draws=1, top_k=[2, 4], strength=[5, 10])
    assert one.grid() == Sadi(top_k=[2, 4], strength=[5, 10]).grid()


@pytest.mark.parametrize("match", ["none", "layer"])
def test_a_draw_does_not_depend_on_their_number_and_the_first_is_listed(llama, match):
    def fitted(draws: int):
        method = Sadi(elements="random", match=match, draws=draws, top_k=2, site="neuron")
        return method.fit(llama, contrasts())

    one, three, five = fitted(1), fitted(3), fitted(5)
    assert (one.ranks.shape, five.ranks.shape) == ((3, 48), (5, 3, 48))
    assert torch.equal(one.ranks, five.ranks[0])
    assert torch.equal(three.ranks, five.ranks[:3])
    assert torch.equal(five.tensors()["element_ranks"], five.ranks)
    assert five.elements() == one.elements()


def test_a_draw_matched_by_layer_has_as_many_elements_in_each_layer_as_sadi(llama):
    own = Sadi(site="neuron").fit(llama, contrasts()).ranks
    drawn = Sadi(site="neuron", elements="random", match="layer", draws=4).fit(llama, contrasts())
    for ranks in drawn.ranks:
        for top_k in range(1, 145, 7):
            assert torch.equal((ranks < top_k).sum(dim=1), (own < top_k).sum(dim=1))
        assert not torch.equal(ranks, own)


def test_what_was_learnt_is_stored_under_its_names(llama):
    intervention = Sadi(top_k=2).fit(llama, contrasts())
    shapes = {name: tuple(tensor.shape) for name, tensor in intervention.tensors().items()}
    assert shapes == {
        "mean_difference": (3, 32),
        "element_scores": (3, 4),
        "element_ranks": (3, 4),
    }
    assert len(intervention.elements()) == 12


@pytest.mark.parametrize(
    ("site", "hidden_site", "expected"),
    [("head", "residual", "head"), ("hidden", "mlp_out", "hidden"),
     ("hidden", "residual", "residual"), ("neuron", "mlp_out", "neuron")],
)  # fmt: skip
def test_the_hidden_site_is_a_matter_of_hidden_alone(site, hidden_site, expected):
    assert Sadi(site=site, hidden_site=hidden_site).activation_site() == Site(expected)


def test_a_method_is_built_from_its_settings():
    method = method_of({"kind": "sadi", "name": "mine", "site": "neuron", "top_k": [3]})
    assert method == Sadi(site="neuron", top_k=[3])
    assert method_of({"kind": "none", "name": "none"}) == Unsteered()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "sadie", "name": "mine"}, r"method\.kind=sadie: .*Did you mean sadi\?"),
        ({"name": "mine"}, r"method\.kind"),
        (
            {"kind": "sadi", "name": "mine", "strenght": 3},
            r"method\.strenght: .*Did you mean strength",
        ),
        ({"kind": "none", "name": "mine", "top_k": 3}, r"method\.top_k: "),
        ({"kind": "sadi", "name": "mine", "CHOICES": {}}, r"method\.CHOICES: "),
    ],
)
def test_unknown_kinds_and_settings_are_refused_in_one_line(settings, message):
    with pytest.raises(SettingError, match=message) as caught:
        method_of(settings)
    assert "\n" not in str(caught.value)


def test_pairs_are_encoded_as_answers_are_scored():
    lm = tiny_lm("llama")
    pairs = [ContrastivePair("Answer:\n", " A", " B", 7), ContrastivePair("So", " yes", " no", 8)]
    encoded, merged = encode_pairs(lm, pairs)
    assert merged == 0
    assert [pair.doc_id for pair in encoded] == [7, 8]
    assert lm.tokenizer.decode(encoded[0].prompt) == "Answer:"
    assert lm.tokenizer.decode(encoded[0].positive) == "\n A"
    kept, _ = encode_pairs(lm, pairs, keep_newline=True)
    assert lm.tokenizer.decode(kept[0].prompt) == "Answer:\n"


def test_a_pair_longer_than_the_context_is_refused():
    pair = ContrastivePair("x" * 510, "ab", "abc", 0)
    with pytest.raises(SettingError, match=r"has 513 tokens, the context 512"):
        encode_pairs(tiny_lm("llama"), [pair])


def test_an_empty_prompt_starts_where_scoring_starts_it():
    """lm-eval puts BOS, or else end-of-text, in front of an answer without a context."""
    lm = tiny_lm("llama")
    (pair,), _ = encode_pairs(lm, [ContrastivePair("", "yes", "no", 0)])
    assert pair.prompt == (lm.tokenizer.eos_token_id,)
    assert lm.tokenizer.decode(pair.positive) == "yes"
