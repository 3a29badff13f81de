"""TruthfulQA without the hub: true, and informative, learnt from its judges' training data."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from sadi_bench.errors import SettingError
from sadi_bench.scoring.judges.offline import (
    LabelledText,
    OfflineJudge,
    check_rows,
    fitted,
    measured,
)
from sadi_bench.scoring.judges.origins import training_files
from sadi_bench.scoring.judges.spec import JudgeSpec

NAME = "truthfulqa-offline"
FILES = {"true": "judge/finetune_truth*.jsonl", "info": "judge/finetune_info*.jsonl"}
PROMPT = re.compile(r"Q: (.*?)\nA:(.*)\n(?:True|Helpful):", re.DOTALL)
COMPLETIONS = {" yes": True, " no": False}


def files(spec: JudgeSpec, data_dir: str | None) -> tuple[Path, ...]:
    """Find the judged answers, of truth and of informativeness; `data_dir` is the task's."""
    return training_files(NAME, spec.data_dir, data_dir, "truthfulqa", list(FILES.values()))


def load(spec: JudgeSpec, data_dir: str | None) -> OfflineJudge:
    """Fit both classifiers, and measure them at first use, whole questions held out.

    They read the answer alone: with the question beside it they told no more apart.
    """
    rows = {}
    for score, path in zip(FILES, files(spec, data_dir), strict=True):
        rows[score] = list(read_judged(path))
        check_rows(NAME, path, rows[score])
    aucs = {score: measured(found, f"{NAME} ({score})") for score, found in rows.items()}
    measures = ", ".join(f"{score} {auc.held_out:.2f}" for score, auc in aucs.items())
    note = (
        "true, info: offline stand-ins (TF-IDF + logistic regression on "
        f"{' and '.join(str(len(found)) for found in rows.values())} answers that TruthfulQA's "
        "judges were trained on, read without the question), not the paper's; on such answers AUC "
        f"{measures} on questions they were not trained on"
    )
    return OfflineJudge(NAME, note, {s: fitted(found) for s, found in rows.items()}, aucs)


def read_judged(path: Path) -> Iterator[LabelledText]:
    """Read answers and their labels; the group is the question. Empty answers are left out."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"judge={NAME}: cannot read {path} ({error}).") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            question, answer = PROMPT.fullmatch(row["prompt"]).groups()
            label = COMPLETIONS[row["completion"]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SettingError(
                f"judge={NAME}: {path} line {number}: expected a JSON object whose prompt reads "
                'Q: …, A: …, True: (or Helpful:), and whose completion is " yes" or " no".'
            ) from error
        if answer.strip():
            yield LabelledText(answer.strip(), label, question)
