"""MMLU's rows, one file a subject."""

from pathlib import Path

from sadi_bench.tasks.readers.lines import BrokenRow, NumberedRows, csv_records

_MMLU_HEADER = ["question", "choice0", "choice1", "choice2", "choice3", "answer"]


def read_mmlu(text: str, path: Path) -> NumberedRows:
    """Read one subject of MMLU: headerless with a letter (the release), or a header and an index.

    The subject is the file's name without its last part: `anatomy_test.csv`.
    """
    subject = path.stem.rpartition("_")[0]
    answers = {letter: index for index, letter in enumerate("ABCD")}
    for line, record in csv_records(text):
        if line == 1 and record == _MMLU_HEADER:
            answers = {str(index): index for index in range(4)}
            continue
        if len(record) != 6 or record[5] not in answers:
            raise BrokenRow(line, f"a question, four choices and one of {', '.join(answers)}")
        yield (
            line,
            {
                "question": record[0],
                "choices": record[1:5],
                "answer": answers[record[5]],
                "subject": subject,
            },
        )
