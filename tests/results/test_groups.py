import numpy as np
import pytest

from sadi_bench.results.groups import group_means, group_table

DOMAINS = ["stem", "stem", "stem", "other"]


@pytest.fixture
def grid(make_grid):
    test = np.zeros((4, 7), int)
    test[0, 0] = test[3, 0] = 1
    test[:, 4] = 1
    return make_grid({"select": np.ones((4, 7), int), "test": test})


def docs(groups=DOMAINS, split="test"):
    return [{"split": split, "doc_id": i, "domain": group} for i, group in enumerate(groups)]


def test_every_document_counts_once_so_large_groups_weigh_more(grid):
    others = docs(["other"] * 4, split="select")
    means = group_means(grid, others + docs(), "domain", {"unsteered": 0, "SADI": 4})
    assert means.to_dict("index") == {
        "other": {"n": 1, "unsteered": 1.0, "SADI": 1.0},
        "stem": {"n": 3, "unsteered": pytest.approx(1 / 3), "SADI": 1.0},
        # The mean over the groups would be 2/3.
        "all": {"n": 4, "unsteered": 0.5, "SADI": 1.0},
    }


def test_a_document_without_a_group_is_an_error(grid):
    with pytest.raises(ValueError, match="1 of 4 documents have no domain"):
        group_means(grid, docs(DOMAINS[:3]), "domain", {"unsteered": 0})


def test_the_table_of_groups_is_in_percent(grid):
    means = group_means(grid, docs(), "domain", {"unsteered": 0})
    assert group_table(means, "exact_match").splitlines() == [
        "exact_match by domain",
        "domain  n  unsteered %",
        "other   1        100.0",
        "stem    3         33.3",
        "all     4         50.0",
    ]
