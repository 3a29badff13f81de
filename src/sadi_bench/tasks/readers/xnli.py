"""English XNLI's rows."""

from pathlib import Path

from sadi_bench.tasks.readers.lines import BrokenRow, NumberedRows, numbered_lines

_HEADER = ("sentence1_en", "sentence2_en", "label")  # of myXNLI
_XNLI_LABELS = {"entailment": 0, "neutral": 1, "contradiction": 2}  # the hub's order


def read_xnli(text: str, _path: Path) -> NumberedRows:
    """Read English XNLI: three columns without a header (XTREME), or myXNLI's six with one."""
    places = (0, 1, 2)
    for number, line in numbered_lines(text):
        fields = line.split("\t")
        if number == 1 and _HEADER[0] in fields:
            if missing := [name for name in _HEADER if name not in fields]:
                raise BrokenRow(number, f"a header with {', '.join(missing)}")
            places = tuple(fields.index(name) for name in _HEADER)
            continue
        if len(fields) <= max(places) or fields[places[2]] not in _XNLI_LABELS:
            found = f" (found {fields[places[2]]!r})" if len(fields) > max(places) else ""
            raise BrokenRow(
                number,
                f"tab-separated premise, hypothesis and one of {', '.join(_XNLI_LABELS)}{found}",
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
