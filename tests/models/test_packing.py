"""Trees of branches, and the two ways of laying them out."""

import itertools

import pytest
import torch

from cases import in_rows, tiny_lm
from sadi_bench.models.layout import layout_of, rows_of, tree_of
from sadi_bench.models.packing import run_branches, run_prefix

BRANCHES = [(4, 5, 6), (4, 5), (4, 7), (8,)]
PROMPTS = [(11, 12, 13, 14), (21,), (31, 32)]
ANSWERS = [BRANCHES, [(4,), (9, 9)], [(5, 6, 7, 8), (5, 6)]]


def test_a_tree_shares_beginnings_and_drops_last_tokens():
    tree = tree_of(3, BRANCHES, keep_last=False)
    assert tree.tokens == [3, 4, 5]
    assert tree.parents == [-1, 0, 1]
    assert tree.depths == [0, 1, 2]
    assert tree.paths == [[0, 1, 2], [0, 1], [0, 1], [0]]


def test_a_tree_keeps_last_tokens_where_activations_are_read():
    tree = tree_of(3, BRANCHES, keep_last=True)
    assert tree.tokens == [3, 4, 5, 6, 7, 8]
    assert tree.parents == [-1, 0, 1, 2, 1, 0]
    assert tree.paths == [[0, 1, 2, 3], [0, 1, 2], [0, 1, 4], [0, 5]]


def test_rows_repeat_the_root_and_have_one_length():
    tree = rows_of(3, BRANCHES, keep_last=False)
    assert tree.tokens == [3, 4, 5, 3, 4, 3, 3, 3, 3]
    assert tree.depths == [0, 1, 2] * 3
    assert tree.paths == [[0, 1, 2], [3, 4], [3, 4], [6]]


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("keep_last", [True, False])
def test_every_path_spells_its_branch_and_sees_only_itself(packed, keep_last):
    layout = layout_of(PROMPTS, ANSWERS, packed=packed, keep_last=keep_last)
    for i, (prompt, branches) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
        for branch, path in zip(branches, layout.paths[i], strict=True):
            spelt = [prompt[-1], *(branch if keep_last else branch[:-1])]
            assert layout.tokens[i, path].tolist() == spelt
            assert layout.depths[i, path].tolist() == list(range(len(path)))
            for place, node in enumerate(path):
                seen = layout.sees[i, node].nonzero().flatten().tolist()
                assert sorted(seen) == sorted(path[: place + 1])
    roots = layout.depths[:, layout.roots]
    assert (roots == 0).all()
    assert layout.sees.diagonal(dim1=1, dim2=2).all()  # padding sees itself: no row is all masked


@pytest.mark.parametrize(
    "name", ["llama", "qwen3", "falcon_new", "gpt_neox", "opt", "gpt2", "phi3"]
)
def test_rows_give_the_final_states_that_a_packed_tree_gives(name):
    lm = tiny_lm(name)
    found = []
    with torch.inference_mode():
        for model in (lm, in_rows(lm)):
            layout = layout_of(PROMPTS, ANSWERS, packed=model.packs, keep_last=True)
            hidden = run_branches(model, run_prefix(model, PROMPTS), layout, 2)
            assert hidden.shape[:3] == (3, 2, layout.tokens.shape[1])
            found.append(
                [hidden[i, :, path] for i, paths in enumerate(layout.paths) for path in paths]
            )
    for packed, rows in zip(*found, strict=True):
        torch.testing.assert_close(packed, rows, rtol=0, atol=1e-5)


def test_a_prefix_is_read_by_many_passes_and_kept_as_it_was(lm):
    layout = layout_of(PROMPTS, ANSWERS, packed=lm.packs)
    with torch.inference_mode():
        prefix = run_prefix(lm, PROMPTS)
        before = [(keys.clone(), values.clone()) for keys, values in prefix.layers]
        passes = [run_branches(lm, prefix, layout, copies) for copies in (1, 3, 1)]
    assert prefix.lengths.tolist() == [3, 0, 1]
    assert prefix.padded_length == 3
    for (keys, values), (old_keys, old_values) in zip(prefix.layers, before, strict=True):
        assert torch.equal(keys, old_keys)
        assert torch.equal(values, old_values)
    assert torch.equal(passes[0], passes[2])
    for copy in range(3):
        torch.testing.assert_close(passes[1][:, copy], passes[0][:, 0], rtol=0, atol=1e-5)


def test_copies_and_branches_do_not_see_each_other(llama):
    """Change one branch: the final states of the others stay."""
    states = []
    for changed in ((5, 6, 7, 8), (5, 6, 7, 99)):
        layout = layout_of([(1, 2)], [[changed, (4, 4)]], packed=True, keep_last=True)
        with torch.inference_mode():
            hidden = run_branches(llama, run_prefix(llama, [(1, 2)]), layout, 2)
        states.append([hidden[0, :, path] for path in layout.paths[0]])
    (first, second), (other_first, other_second) = states
    assert torch.equal(second, other_second)
    assert torch.equal(first[:, :-1], other_first[:, :-1])
    assert not torch.equal(first[:, -1], other_first[:, -1])


def test_every_order_of_the_answers_spells_the_same_nodes():
    sizes = {
        len(tree_of(3, order, keep_last=True).tokens) for order in itertools.permutations(BRANCHES)
    }
    assert sizes == {6}
