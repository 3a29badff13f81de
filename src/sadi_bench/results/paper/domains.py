"""What a run of MMLU measured in each of the four domains, as its report has it for all rows."""

from collections.abc import Iterable, Mapping

import pandas as pd

from sadi_bench.results.judged import judged_report

DOMAINS = {
    "mmlu_humanities": "humanities",
    "mmlu_stem": "STEM",
    "mmlu_social_sciences": "social sciences",
    "mmlu_other": "other",
}
"""A task of the paper's Table 2 → the rows of the task `mmlu` that it means."""

METRICS = ("paper_match", "acc")

# As MMLU's authors group its 57 subjects (arXiv 2009.03300 and its code).
_SUBJECTS = {
    "STEM": """abstract_algebra anatomy astronomy college_biology college_chemistry
        college_computer_science college_mathematics college_physics computer_security
        conceptual_physics electrical_engineering elementary_mathematics high_school_biology
        high_school_chemistry high_school_computer_science high_school_mathematics
        high_school_physics high_school_statistics machine_learning""",
    "humanities": """formal_logic high_school_european_history high_school_us_history
        high_school_world_history international_law jurisprudence logical_fallacies moral_disputes
        moral_scenarios philosophy prehistory professional_law world_religions""",
    "social sciences": """econometrics high_school_geography
        high_school_government_and_politics high_school_macroeconomics high_school_microeconomics
        high_school_psychology human_sexuality professional_psychology public_relations
        security_studies sociology us_foreign_policy""",
    "other": """business_ethics clinical_knowledge college_medicine global_facts human_aging
        management marketing medical_genetics miscellaneous nutrition professional_accounting
        professional_medicine virology""",
}

DOMAIN_OF_SUBJECT = {
    subject: domain for domain, subjects in _SUBJECTS.items() for subject in subjects.split()
}


def domain_scores(
    docs: Iterable[Mapping[str, object]],
    grid: pd.DataFrame,
    protocols: Mapping[str, Mapping[str, object]],
) -> dict[str, dict[str, dict[str, dict[str, object]]]]:
    """Return domain → row → metric → value, interval, and its difference from unsteered.

    Empty where the documents have no subject. A row with numbers that are not finite, or of several
    cells, is left out.
    """
    domain_of = {
        doc["doc_id"]: domain
        for doc in docs
        if doc["split"] == "test" and (domain := _domain(doc)) is not None
    }
    if not domain_of:
        return {}
    rows = {r: protocols[r] for r in ("unsteered", "heldout", "oracle") if protocols.get(r)}
    cells = {row: found["cell"] for row, found in rows.items()
             if found["cell"] is not None and not found["n_nonfinite"]}  # fmt: skip
    test = grid[(grid["split"] == "test") & grid["cell"].isin([0, *cells.values()])]
    by_domain = test.groupby(test["doc_id"].map(domain_of))
    return {str(domain): judged_report(part, METRICS, cells) for domain, part in by_domain}


def _domain(doc: Mapping[str, object]) -> str | None:
    """Look a document's subject up; runs of older versions wrote the domain itself."""
    subject = doc.get("subject") or (doc.get("row") or {}).get("subject")
    return doc.get("domain") if subject is None else DOMAIN_OF_SUBJECT.get(subject, "other")
