"""Story Cloze's rows under XStoryCloze's column names."""

from pathlib import Path

from sadi_bench.tasks.readers.lines import BrokenRow, NumberedRows, csv_rows

_STORYCLOZE_COLUMNS = {
    "InputStoryid": "story_id",
    **{f"InputSentence{n}": f"input_sentence_{n}" for n in (1, 2, 3, 4)},
    "RandomFifthSentenceQuiz1": "sentence_quiz1",
    "RandomFifthSentenceQuiz2": "sentence_quiz2",
    "AnswerRightEnding": "answer_right_ending",
}


def read_storycloze(text: str, _path: Path) -> NumberedRows:
    """Read the Story Cloze CSV under XStoryCloze's column names."""
    for line, record in csv_rows(text, list(_STORYCLOZE_COLUMNS)):
        row = {_STORYCLOZE_COLUMNS.get(name, name): value for name, value in record.items()}
        if row["answer_right_ending"] not in ("1", "2"):
            raise BrokenRow(line, "AnswerRightEnding 1 or 2")
        yield line, {**row, "answer_right_ending": int(row["answer_right_ending"])}
