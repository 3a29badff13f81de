"""Scores, ranks and masks of elements, re-derived in NumPy."""

import numpy as np
import torch

from sadi_bench.models.families import Site
from sadi_bench.steering.elements import (
    element_scores,
    listed_elements,
    random_ranks,
    ranks_of,
    shuffled_ranks,
)
from sadi_bench.steering.intervention import UNSTEERED, Cell
from sadi_bench.steering.ranked import graded_masks


def difference(seed: int = 0, layers: int = 3, width: int = 48) -> torch.Tensor:
    return torch.randn(layers, width, generator=torch.Generator().manual_seed(seed))


def test_a_heads_score_is_the_mean_over_its_head_dim():
    """Four heads of twelve: a head's width need not be hidden size / heads."""
    values = difference()
    expected = values.numpy().reshape(3, 4, 12).mean(axis=2)
    np.testing.assert_allclose(element_scores(values, Site.head, 4), expected, atol=1e-7)


def test_other_elements_are_their_own_scores():
    values = difference()
    for site in (Site.neuron, Site.hidden, Site.residual):
        assert torch.equal(element_scores(values, site, 4), values)


def test_abs_takes_the_sign_off_the_mean_and_not_off_the_coordinates():
    values = difference()
    mean = values.numpy().reshape(3, 4, 12).mean(axis=2)
    np.testing.assert_allclose(
        element_scores(values, Site.head, 4, absolute=True), abs(mean), atol=1e-7
    )
    assert (mean < 0).any()


def test_signed_ranks_put_the_most_negative_last_and_abs_puts_it_first():
    values = torch.tensor([[0.5, -9.0], [2.0, 0.0]])
    assert ranks_of(element_scores(values, Site.hidden, 1)).tolist() == [[1, 3], [0, 2]]
    assert ranks_of(element_scores(values, Site.hidden, 1, True)).tolist() == [[2, 0], [1, 3]]


def test_ranks_are_taken_over_all_layers_together():
    scores = difference()
    order = np.argsort(-scores.numpy().ravel(), kind="stable")
    ranks = ranks_of(scores).flatten()
    assert ranks[order].tolist() == list(range(scores.numel()))


def test_ties_go_to_the_lower_flat_index_and_exactly_k_are_masked():
    scores = torch.zeros(4, 300)
    scores[2, 7] = 1.0
    scores[1, 5] = -1.0
    ranks = ranks_of(scores)
    for top_k in (1, 2, 100, 301, 1200):
        mask = ranks < top_k
        assert int(mask.sum()) == top_k
    assert ranks[2, 7] == 0
    assert ranks[1, 5] == 1199
    assert ranks[0].tolist() == list(range(1, 301))
    listed = listed_elements(scores, ranks, 3)
    assert listed == [(2, 7, 1.0), (0, 0, 0.0), (0, 1, 0.0)]


def test_random_ranks_are_a_permutation_drawn_by_the_seed():
    scores = difference()
    state = torch.get_rng_state()
    first, again, other = (random_ranks(scores, seed, 1) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert sorted(first.flatten().tolist()) == list(range(scores.numel()))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_draw_is_another_one_than_the_last_and_the_same_however_many_follow():
    scores = difference()
    for draw, of in ((random_ranks, scores), (shuffled_ranks, ranks_of(scores))):
        few, many = draw(of, 3, 2), draw(of, 3, 5)
        assert (many.shape, many.dtype) == ((5, 3, 48), torch.int32)
        assert torch.equal(few, many[:2])
        assert len(many.flatten(1).unique(dim=0)) == 5


def test_shuffled_ranks_mask_as_many_elements_of_each_layer_for_every_k():
    ranks = ranks_of(difference())
    for drawn in shuffled_ranks(ranks, 0, 3):
        assert not torch.equal(drawn, ranks)
        for top_k in (1, 5, 40, 144):
            assert torch.equal((drawn < top_k).sum(dim=1), (ranks < top_k).sum(dim=1))


def test_a_cell_is_masked_by_its_own_draw_from_the_first_layer_that_has_an_element():
    ranks = random_ranks(difference(), 0, 3)
    points = [(draw, top_k) for draw in (1, 3, 2) for top_k in (1, 2, 6)]
    params = [{"draw": draw, "top_k": top_k, "strength": 3.0} for draw, top_k in points]
    params += [{"draw": 2, "top_k": 6, "strength": 1.0}]
    cells = [UNSTEERED, *(Cell(i, p) for i, p in enumerate(params, 1))]
    masks, change = graded_masks(ranks, cells, "strength", identity=1.0)
    assert change.tolist() == [0.0] + [2.0] * 9 + [0.0]
    expected = [torch.zeros(3, 48, dtype=bool)] * 11
    expected[1:10] = [ranks[draw - 1] < top_k for draw, top_k in points]
    for layer in range(3):
        some = torch.tensor([4, 0, 9, 1])
        found = masks.at(layer, some, torch.device("cpu"))
        wanted = torch.stack([expected[cell][layer] for cell in some])
        assert torch.equal(wanted, torch.zeros_like(wanted) if found is None else found)
    for cell in range(11):
        layers = expected[cell].any(dim=1).nonzero().flatten().tolist()
        assert masks.first_layer(cell) == min(layers, default=3)
    assert masks.at(0, torch.tensor([0, 10]), torch.device("cpu")) is None


def test_elements_are_listed_best_first_with_their_places():
    scores = difference()
    listed = listed_elements(scores, ranks_of(scores), 20)
    assert [score for *_, score in listed] == sorted(scores.flatten().tolist(), reverse=True)[:20]
    assert all(scores[layer, index] == score for layer, index, score in listed)
    assert len(listed_elements(scores, ranks_of(scores), 10**6)) == scores.numel()
