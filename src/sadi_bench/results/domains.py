"""What a run of MMLU measured in each of the four domains, as its report has it for all rows."""

import pandas as pd

from sadi_bench.results.judged import judged_report
from sadi_bench.results.reading import Run

DOMAINS = {
    "mmlu_humanities": "humanities",
    "mmlu_stem": "STEM",
    "mmlu_social_sciences": "social sciences",
    "mmlu_other": "other",
}
"""A task of the paper's Table 2 → the rows of the task `mmlu` that it means."""

METRICS = ("paper_match", "acc")


def domain_scores(run: Run) -> dict[str, dict[str, dict[str, dict[str, object]]]]:
    """Return domain → row → metric → value, interval, and its difference from unsteered.

    Empty where the documents have no domain. A row with numbers that are not finite, or of several
    cells, is left out.
    """
    docs = pd.DataFrame(run.docs)
    if "domain" not in docs:
        return {}
    report = run.result["sadi_bench"]["protocols"]
    rows = {row: report[row] for row in ("unsteered", "heldout", "oracle") if report.get(row)}
    cells = {row: found["cell"] for row, found in rows.items()
             if found["cell"] is not None and not found["n_nonfinite"]}  # fmt: skip
    grid = run.grid[run.grid["cell"].isin([0, *cells.values()])]
    domain_of = docs[docs["split"] == "test"].set_index("doc_id")["domain"]
    test = grid[grid["split"] == "test"]
    by_domain = test.groupby(test["doc_id"].map(domain_of))
    return {str(domain): judged_report(part, METRICS, cells) for domain, part in by_domain}
