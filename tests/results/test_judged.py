"""What a judge says of a run's texts, held against counting by hand."""

import numpy as np
import pandas as pd
import pytest

from sadi_bench.results.judged import judged_report
from sadi_bench.results.statistics import mcnemar_exact, mean_interval

CELLS = {"unsteered": 0, "heldout": 2, "oracle": 2}
TRUE = {0: [0, 0, 0, 1], 2: [1, 1, 1, 1]}  # cell → test documents
INFO = {0: [1, 1, 0, 1], 2: [0, 1, 0, 1]}


@pytest.fixture
def texts() -> pd.DataFrame:
    """Judged texts of four test documents, and of a select split that must not count."""
    rows = [
        {"split": split, "doc_id": doc, "cell": cell, "true": true, "info": info}
        for cell in (0, 2)
        for doc, (true, info) in enumerate(zip(TRUE[cell], INFO[cell], strict=True))
        for split in ("test", "select")
    ]
    found = pd.DataFrame(rows).sample(frac=1, random_state=0)
    found.loc[found["split"] == "select", ["true", "info"]] = 0
    return found


def test_values_are_the_shares_of_the_test_documents(texts):
    report = judged_report(texts, ("true", "info"), CELLS)
    values = {
        (row, score): found["value"] for row in report for score, found in report[row].items()
    }
    assert values == {
        ("unsteered", "true"): 0.25, ("unsteered", "info"): 0.75,
        ("unsteered", "true_x_info"): 0.1875,
        ("heldout", "true"): 1.0, ("heldout", "info"): 0.5, ("heldout", "true_x_info"): 0.5,
        ("oracle", "true"): 1.0, ("oracle", "info"): 0.5, ("oracle", "true_x_info"): 0.5,
    }  # fmt: skip
    assert {found["n"] for row in report.values() for found in row.values()} == {4}


def test_a_steered_row_is_compared_with_the_unsteered_one_document_by_document(texts):
    report = judged_report(texts, ("true", "info"), CELLS, seed=3)
    found = report["heldout"]["true"]
    assert (found["value"], found["n"], found["ci95"]) == (1.0, 4, list(mean_interval(np.ones(4))))
    assert (found["difference"], found["p_value"], found["test"]) == (0.75, 0.25, "mcnemar_exact")
    assert (found["gained"], found["lost"]) == (3, 0)
    info = report["heldout"]["info"]
    assert (info["difference"], info["gained"], info["lost"]) == (-0.25, 0, 1)
    assert info["p_value"] == mcnemar_exact(INFO[0], INFO[2])[0] == 1.0
    assert "p_value" not in report["unsteered"]["true"]


def test_texts_that_belong_together_are_tested_together(texts):
    grouped = texts.assign(group=(texts["doc_id"] // 2).astype(str))
    found = judged_report(grouped, ("true", "info"), CELLS)["heldout"]["true"]
    assert (found["test"], found["gained"], found["lost"]) == ("sign_flip_groups", 3, 0)
    # Two groups, of two and one gained documents: half of the sign flips are as large.
    assert found["p_value"] == pytest.approx(0.5, abs=0.02)


def test_only_truth_and_information_are_multiplied(texts):
    assert set(judged_report(texts, ("true",), CELLS)["oracle"]) == {"true"}
    toxic = texts.rename(columns={"true": "toxicity"})
    assert set(judged_report(toxic, ("toxicity",), {"unsteered": 0})["unsteered"]) == {"toxicity"}
