"""Say in one sentence whether steering did more than a constant would.

The rule reads only the report's numbers. docs/numbers.md states it; each branch has a test.
"""

from collections.abc import Mapping

from sadi_bench.results.scored import AUC, BIASED, POOLED_AUC

BELOW, WITHIN, ABOVE = "below", "within", "above"


def diagnosis(
    report: Mapping[str, object],
    answers: Mapping[str, object] | None,
    against_constant: Mapping[str, object] | None,
) -> dict[str, object] | None:
    """Return the verdicts behind the sentence, and the sentence; None where there is none to say.

    `report`: the protocols; `answers`: the answer report; `against_constant`: the unsteered model's
    `acc_biased` less the held-out `acc`, paired ({difference, difference_ci95}), None where no
    constant can be fitted. It takes the held-out row, without one the oracle's.
    """
    row = "heldout" if report.get("heldout") else "oracle"
    if answers is None or not report.get(row) or row not in answers["changed"]:
        return None
    steered, plain = report[row]["metrics"], report["unsteered"]["metrics"]
    curve = AUC if AUC in steered else POOLED_AUC
    found: dict[str, object] = {
        "row": row,
        "changed": answers["changed"][row],
        "curve": curve,
        "separates": _side(steered[curve].get("difference_ci95")),
        "constant": None
        if against_constant is None
        else _side(against_constant["difference_ci95"]),
    }
    found["sentence"] = _sentence(found, steered, plain)
    return found


def _side(interval: list[float] | None) -> str | None:
    """Say where a difference's 95 % interval lies from 0."""
    if interval is None:
        return None
    low, high = interval
    return ABOVE if low > 0 else BELOW if high < 0 else WITHIN


def _sentence(found: Mapping, steered: Mapping, plain: Mapping) -> str:
    if found["changed"] == 0:
        return "Steering changed no answer."
    start = f"Steering changed {_percent(found['changed'])} % of the answers"
    parts = [_separation(found, steered, plain), _constant(found, steered, plain)]
    rest = ", and ".join(part for part in parts if part)
    return f"{start}; {rest}." if rest else f"{start}."


def _separation(found: Mapping, steered: Mapping, plain: Mapping) -> str:
    verdict = {ABOVE: "better than", WITHIN: "no better than", BELOW: "worse than"}
    if found["separates"] is None:
        return ""
    before, after = plain[found["curve"]]["value"], steered[found["curve"]]["value"]
    return (
        f"it separates right from wrong {verdict[found['separates']]} the unsteered model "
        f"(AUC {after:.3f} against {before:.3f})"
    )


def _constant(found: Mapping, steered: Mapping, plain: Mapping) -> str:
    verdict = {ABOVE: "does more", WITHIN: "does as much", BELOW: "does less"}
    if found["constant"] is None:
        return ""
    alone, value = plain[BIASED]["value"], steered["acc"]["value"]
    return (
        f"one constant fitted on the select split {verdict[found['constant']]} "
        f"(acc {_percent(alone)} % without steering, {_percent(value)} % with it)"
    )


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"
