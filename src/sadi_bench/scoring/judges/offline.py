"""Judges for machines without the hub: a linear classifier, fitted where it is used.

They are nobody's published judges. How well they tell texts apart is measured on texts that they
were not fitted to, and stands beside every number that they give.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline, make_union
from tqdm import tqdm

from sadi_bench.disk import cache_folder
from sadi_bench.errors import SettingError
from sadi_bench.scoring.judges.base import Generation, decided
from sadi_bench.sealed import keep_file, kept_file

FOLDS = 5


@dataclass(frozen=True)
class LabelledText:
    """Hold a text, its label, and the group that is held out as one."""

    text: str
    label: bool
    group: str


@dataclass(frozen=True)
class Auc:
    """Hold areas under the ROC curve, cross-validated over texts and over whole groups."""

    in_domain: float
    held_out: float


@dataclass(frozen=True)
class OfflineJudge:
    """Judge by one fitted classifier a score; it reads the text alone."""

    name: str
    note: str
    classifiers: Mapping[str, Pipeline]
    aucs: Mapping[str, Auc]

    @property
    def scores(self) -> tuple[str, ...]:
        """Name what it gives."""
        return tuple(self.classifiers)

    def judge(self, generations: Sequence[Generation]) -> dict[str, np.ndarray]:
        """Return decisions and probabilities [text] of every score."""
        found: dict[str, np.ndarray] = {}
        for score, classifier in self.classifiers.items():
            found |= decided(score, generations, partial(probabilities, classifier))
        return found


def probabilities(classifier: Pipeline, generations: Sequence[Generation]) -> np.ndarray:
    """Return the probability of the label [text]."""
    return classifier.predict_proba([generation.text for generation in generations])[:, 1]


def classifier() -> Pipeline:
    """Make what is fitted: TF-IDF of words and of parts of words, and a logistic regression.

    Classes weigh the same: so as many texts are called toxic, or true, as are. It is fitted in
    one to three seconds, so only its measured AUC is kept, and nothing is pickled.
    """
    words = TfidfVectorizer(
        ngram_range=(1, 2), min_df=2, sublinear_tf=True, token_pattern=r"\b\w+\b"
    )
    parts = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), min_df=5, sublinear_tf=True)
    regression = LogisticRegression(C=2.0, class_weight="balanced", max_iter=1000)
    return make_pipeline(make_union(words, parts), regression)


def fitted(rows: Sequence[LabelledText]) -> Pipeline:
    """Fit the classifier to all rows; the same rows give the same classifier."""
    return classifier().fit([row.text for row in rows], np.array([row.label for row in rows]))


def check_rows(judge: str, path: Path, rows: Sequence[LabelledText]) -> None:
    """Refuse rows that no AUC could be measured on."""
    least = min(sum(row.label == label for row in rows) for label in (False, True))
    groups = len({row.group for row in rows})
    if least < FOLDS or groups < FOLDS:
        raise SettingError(
            f"judge={judge}: {path} has {len(rows)} rows, {least} of the rarer label, in {groups} "
            f"groups; its AUC is measured on {FOLDS} or more of each: take the original file."
        )


def measured(rows: Sequence[LabelledText], name: str) -> Auc:
    """Cross-validate the classifier; done once for the same rows, then read from the cache."""
    folder, key = cache_folder() / "judges", _key(rows)
    if (path := kept_file(folder, key, ".json")) is not None:
        with suppress(OSError, ValueError, TypeError):
            return Auc(**json.loads(path.read_text(encoding="utf-8")))
    auc = _cross_validated(rows, name)
    with suppress(OSError):  # a cache that cannot be written is no error
        keep_file(folder, key, ".json", json.dumps(asdict(auc)).encode())
    return auc


def _cross_validated(rows: Sequence[LabelledText], name: str) -> Auc:
    texts = np.array([row.text for row in rows], dtype=object)
    labels = np.array([row.label for row in rows])
    groups = [row.group for row in rows]
    folds = {
        "in_domain": StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(texts, labels),
        "held_out": GroupKFold(FOLDS).split(texts, labels, groups),
    }
    found = {}
    with tqdm(total=2 * FOLDS, desc=f"measuring {name}, once", delay=2, disable=None) as bar:
        for kind, splits in folds.items():
            given = np.zeros(len(rows))
            for fit, held in splits:
                model = classifier().fit(texts[fit], labels[fit])
                given[held] = model.predict_proba(texts[held])[:, 1]
                bar.update()
            found[kind] = float(roc_auc_score(labels, given))
    return Auc(**found)


def _key(rows: Sequence[LabelledText]) -> str:
    """Hash what decides the AUC: the rows, this code, and the library that fits."""
    digest = hashlib.sha256(Path(__file__).read_bytes() + version("scikit-learn").encode())
    for row in rows:
        digest.update(repr((row.text, row.label, row.group)).encode())
    return digest.hexdigest()
