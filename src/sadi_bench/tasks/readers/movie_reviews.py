"""Sentences of movie reviews with people's mean ratings."""

from pathlib import Path

from sadi_bench.tasks.readers.lines import BrokenRow, NumberedRows, numbered_lines


def read_movie_reviews(text: str, _path: Path) -> NumberedRows:
    """Read id, mean rating (-4…4) and text; the label is the sign, weaker ratings are left out."""
    for number, line in numbered_lines(text):
        fields = line.split("\t")
        try:
            identity, rating = int(fields[0]), float(fields[1])
            yield_row = abs(rating) >= 1
            row = {"id": identity, "text": fields[2].strip(), "label": int(rating > 0)}
        except (ValueError, IndexError) as error:
            raise BrokenRow(number, "tab-separated id, rating and text") from error
        if yield_row:
            yield number, row
