"""English XNLI's rows."""

from pathlib import Path

from sadi_bench.tasks.readers.lines import BrokenRow, NumberedRows, numbered_lines

_XNLI_LABELS = {"entailment": 0, "neutral": 1, "contradiction": 2}  # the hub's order


def read_xnli(text: str, _path: Path) -> NumberedRows:
    """Read English XNLI: three columns without a header (XTREME), or myXNLI's six with one."""
    places = (0, 1, 2)
    for number, line in numbered_lines(text):
        fields = line.split("\t")
        if number == 1 and "sentence1_en" in fields:
            places = tuple(fields.index(n) for n in ("sentence1_en", "sentence2_en", "label"))
            continue
        if len(fields) <= max(places) or fields[places[2]] not in _XNLI_LABELS:
            raise BrokenRow(
                number,
                "tab-separated premise, hypothesis and one of " + ", ".join(_XNLI_LABELS),
            )
        premise, hypothesis, label = (fields[place] for place in places)
        yield (
            number,
            {
                "premise": premise,
                "hypothesis": hypothesis,
                "label": _XNLI_LABELS[label],
            },
        )
