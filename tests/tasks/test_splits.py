"""The three splits are disjoint, seeded, and of the sizes asked for."""

import pytest

from sadi_bench.errors import SettingError
from sadi_bench.tasks.recipe import Doc
from sadi_bench.tasks.spec import TaskSpec
from sadi_bench.tasks.splits import _check_disjoint, carve, draw_splits


def docs(count: int, prefix: str, per_group: int = 1) -> list[Doc]:
    return [
        Doc(i, {"subject": f"s{i % 3}"}, f"{prefix} {i}", ("A", "B"), i % 2, f"g{i // per_group}")
        for i in range(count)
    ]


def draw(identify: int = 1000, test: int = 50, protocol="heldout", seed=0, group=1, **sizes):
    spec = TaskSpec(name="toy", **sizes)
    return draw_splits(
        spec, docs(identify, "i", group), docs(test, "t"), protocol=protocol, seed=seed
    )


def ids(split) -> list[int]:
    return [doc.doc_id for doc in split]


@pytest.mark.parametrize(
    ("rows", "paper_pairs", "n_pairs", "n_select", "expected"),
    [
        (1000, 500, None, None, (500, 500)),  # COPA
        (360, 360, None, None, (240, 120)),  # StoryCloze: none left, so a third
        (100, None, None, None, (67, 33)),  # XCOPA: the paper states no number
        (6920, 1000, None, None, (1000, 500)),  # at most 500 to select on
        (6920, 1000, None, 900, (1000, 900)),
        (1000, 500, None, 900, (100, 900)),  # an explicit size wins over a default one
        (1000, 500, 40, 40, (40, 40)),
        (1000, 500, 999, None, (999, 1)),
    ],
)
def test_the_default_sizes(rows, paper_pairs, n_pairs, n_select, expected):
    splits = draw(rows, paper_pairs=paper_pairs, n_pairs=n_pairs, n_select=n_select)
    assert (len(splits.identify), len(splits.select)) == expected


def test_pairs_and_select_rows_never_meet():
    splits = draw(n_pairs=600, n_select=400)
    assert not set(ids(splits.identify)) & set(ids(splits.select))


def test_groups_are_never_parted_between_pairs_and_select():
    splits = draw(group=3, n_pairs=500)
    groups = [{doc.group for doc in split} for split in (splits.identify, splits.select)]
    assert not groups[0] & groups[1]
    assert len(splits.identify) == 500


def test_a_smaller_size_draws_a_part_of_a_larger_one():
    small, large = (
        draw(n_pairs=40, n_select=30, n_test=10),
        draw(n_pairs=400, n_select=90, n_test=20),
    )
    for split in ("identify", "select", "test"):
        assert set(ids(getattr(small, split))) < set(ids(getattr(large, split)))


def test_the_seed_decides_and_the_order_is_the_pools():
    assert draw(seed=3) == draw(seed=3)
    assert ids(draw(seed=3, n_pairs=40).identify) != ids(draw(seed=4, n_pairs=40).identify)
    assert ids(draw(n_test=20).test) == sorted(ids(draw(n_test=20).test))


def test_the_draw_is_the_same_on_every_platform():
    assert ids(draw(20, n_pairs=5).identify) == [2, 3, 7, 8, 9]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"n_pairs": 5000}, r"task\.n_pairs=5000: toy has 1,000 rows .* choose at most 999\."),
        ({"n_pairs": 1000}, r"choose at most 999\."),
        ({"n_pairs": 900, "n_select": 101}, r"task\.n_pairs=900: .* choose at most 899\."),
        ({"n_select": 1000}, r"task\.n_select=1000: .* choose at most 999\."),
        ({"n_test": 51}, r"task\.n_test=51: toy has 50 test rows; choose at most 50\."),
        ({"n_pairs": 0}, r"task\.n_pairs=0: choose at least 1"),
        ({"n_select": -3}, r"task\.n_select=-3: choose at least 1"),
        ({"n_test": 0}, r"task\.n_test=0: choose at least 1"),
    ],
)
def test_a_size_out_of_bounds_names_the_setting_and_the_bound(sizes, message):
    with pytest.raises(SettingError, match=message):
        draw(**sizes)


def test_identify_rows_that_are_tested_on_or_repeated_are_dropped_and_counted():
    identify, test = docs(30, "i"), docs(10, "t")
    copies = [Doc(30, {}, "t 4", ("A", "B"), 0, "x"), Doc(31, {}, "i 7", ("A", "B"), 0, "y")]
    splits = draw_splits(TaskSpec(name="toy"), identify + copies, test, protocol="heldout", seed=0)
    assert not {30, 31} & {*ids(splits.identify), *ids(splits.select)}
    assert "2 of 32 rows" in splits.notes[0]
    assert "tested on (1) or came before (1)" in splits.notes[0]


def test_overlapping_splits_are_refused():
    with pytest.raises(SettingError, match="1 prompts are in two splits"):
        _check_disjoint(TaskSpec(name="toy"), docs(3, "a"), None, docs(3, "b") + docs(1, "a"))


def test_the_papers_protocol_takes_its_rows_and_selects_nothing():
    splits = draw(360, protocol="paper", paper_pairs=360)
    assert len(splits.identify) == 360
    assert splits.select is None
    assert any("only the oracle" in note for note in splits.notes)


def test_the_papers_protocol_can_identify_on_the_test_rows():
    splits = draw(5, 60, protocol="paper", paper_identifies_on_test=True, paper_pairs=60)
    assert splits.identify == splits.test
    assert any("pairs are made of the test rows" in note for note in splits.notes)


def test_the_cap_keeps_the_first_rows_of_each_value():
    splits = draw(test=30, test_rows_per={"subject": 4})
    assert ids(splits.test) == list(range(12))


def test_carving_takes_whole_groups_and_does_not_depend_on_sizes_or_seed():
    test = docs(100, "t", per_group=2)
    spec = TaskSpec(name="toy", n_pairs=7, n_test=3)
    identify, kept, notes = carve(spec, [], test)
    assert carve(TaskSpec(name="toy"), [], test)[:2] == (identify, kept)
    assert len(identify) == len(kept) == 50
    assert not {doc.group for doc in identify} & {doc.group for doc in kept}
    assert "one pool of 100 rows" in notes[0]


def test_carving_takes_no_more_than_the_paper_and_selection_need():
    identify, kept, _ = carve(TaskSpec(name="toy", paper_pairs=100), docs(32, "x"), docs(5000, "t"))
    assert (len(identify), len(kept)) == (600, 4432)
