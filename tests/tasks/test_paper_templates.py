"""Prompts and answers of every task against the paper's templates, on rows written here."""

import pytest

from sadi_bench.choosing_metric import selecting_metric
from sadi_bench.settings import RunConfig
from sadi_bench.tasks.task import load_task

# The paper's templates to the letter; names in braces are filled by hand below.
COPA = (
    "Question:\n{premise} Based on the previous passage, choose the most reasonable {question}."
    "\nA:{choice1}\nB:{choice2}\n\nAnswer:\n"
)
SENTIMENT = (
    "Consider the sentiment expression in this sentence and respond briefly with "
    "'positive' or 'negative'.\n\n{text}\n\nAnswer:"
)
TEMPLATES = {
    "copa": COPA,
    "xcopa_it": COPA,
    "xcopa_zh": COPA,
    "storycloze": (
        "{s1} {s2} {s3} {s4}\nQuestion: What is a possible continuation for the story given the "
        "following options?\nA: {e1} B: {e2}\nAnswer:"
    ),
    "sst2": SENTIMENT,
    "movie_reviews": SENTIMENT,
    "movie_reviews_capital": SENTIMENT,
    "sst5": (
        "Consider the sentiment expression in this sentence and respond briefly with 'very "
        "positive', 'positive', 'neutral', 'negative', and 'very negative'.\n\n{text}\n\nAnswer:"
    ),
    "boolq": (
        "Is the answer to the question encapsulated in the passage? Please confirm with 'yes' or "
        "'no'.\n\nPassage: {passage}\n\nQuestion: {question}\n\nAnswer:"
    ),
    "mmlu": (
        "Question: {question}\nWhich of the following answers is correct?\nA. {a}\nB. {b}\nC. {c}\n"
        "D. {d}\nState the letter corresponding to the correct answer.\nAnswer:"
    ),
    "nli": (
        "Answer whether the hypothesis is more likely to be true, false, or unclusive based on the "
        "given premise.\nPremise: {premise}\nHypothesis: {hypothesis}\nAnswer:"
    ),
    "winogrande": (
        "Please fill in the blanks. Write A or B as the answer.\n\nSentence: {sentence}\n"
        "A. {option1}\nB. {option2}\nAnswer:"
    ),
}
FIVE = ["very negative", "negative", "neutral", "positive", "very positive"]

# Task → how the n-th test row of the small files is filled in, its answers, the right one of them.
ROWS = {
    "copa": lambda n: (
        {"premise": f"Premise {501 + n} & more.", "choice1": f"One {501 + n}.",
         "choice2": f"Two {501 + n}.", "question": ("effect", "cause")[n % 2]},
        ["A", "B"], ("B", "A")[n % 2],
    ),
    "xcopa_it": lambda n: (
        {"premise": f"Premessa test {n}.", "choice1": f"Uno {n}.", "choice2": f"Due {n}.",
         "question": "effect"},
        ["A", "B"], ("A", "B")[n % 2],
    ),
    "storycloze": lambda n: (
        {f"s{i}": f"Story {360 + n}, part {i}." for i in (1, 2, 3, 4)}
        | {"e1": f"End {360 + n}.", "e2": f'Other "{360 + n}".'},
        ["A", "B"], ("A", "B")[n % 2],
    ),
    "sst2": lambda n: (
        {"text": f"a test sentence {n} ."},
        ["Negative", "Positive"], ("Negative", "Positive")[n % 2],
    ),
    "sst5": lambda n: ({"text": f"a test sentence {n} ."}, FIVE, FIVE[n % 5]),
    "mmlu": lambda n: (
        {"question": f"anatomy test {n},\nsecond line?", "a": f"w{n}", "b": f"x{n}", "c": f"y{n}",
         "d": f"z{n}"},
        ["A", "B", "C", "D"], "ABCD"[n % 4],
    ),
    "nli": lambda n: (
        {"premise": f"Text {n // 3}.",
         "hypothesis": f"Claim {('entailment', 'neutral', 'contradiction')[n % 3]} {n // 3}."},
        ["True", "unclusive", "False"], ("True", "unclusive", "False")[n % 3],
    ),
    "winogrande": lambda n: (
        {"sentence": f"dev {n} and _ left.", "option1": f"Ann{n // 2}", "option2": f"Bo{n // 2}"},
        ["A", "B"], ("A", "B")[n % 2],
    ),
}  # fmt: skip
ROWS["xcopa_zh"] = ROWS["xcopa_it"]


def rendered(task, row: int) -> tuple[str, list[str], str]:
    """Return the prompt of a test row, its answers and the right one."""
    document = task.test.test_docs()[row]
    answers = task.test.doc_to_choice(document)
    prompt = task.test.doc_to_text(document)
    return prompt, answers, answers[task.test.doc_to_target(document)]


@pytest.mark.parametrize("row", [0, 1, 2])
@pytest.mark.parametrize("name", ROWS)
def test_prompt_answers_and_gold_are_the_papers(own_task, name, row):
    task = load_task(own_task(name), protocol="heldout", seed=0)
    fields, answers, gold = ROWS[name](row)
    assert rendered(task, row) == (TEMPLATES[name].format(**fields), answers, gold)
    assert task.spec.target_delimiter == " "


def test_boolq_asks_and_answers_as_the_paper(own_task):
    task = load_task(own_task("boolq"), protocol="heldout", seed=0)
    for row in range(3):
        document = task.test.test_docs()[row]
        number = int(document["question"].split()[2])
        fields = {"passage": f"Passage dev {number // 2}.", "question": f"is dev {number} so"}
        gold = "Yes" if number % 3 else "No"
        assert rendered(task, row) == (TEMPLATES["boolq"].format(**fields), ["No", "Yes"], gold)


@pytest.mark.parametrize(
    ("name", "answers"),
    [("movie_reviews", ["negative", "positive"]),
     ("movie_reviews_capital", ["Negative", "Positive"])],
)  # fmt: skip
def test_movie_reviews_ask_as_sst2_and_differ_in_the_answers_capital(own_task, name, answers):
    task = load_task(own_task(name), protocol="heldout", seed=0)
    for row in range(3):
        document = task.test.test_docs()[row]
        number = int(document["text"].split()[2].rstrip("."))
        gold = answers[(2.5, -1.0, None, -3.2, 1.0)[number % 5] > 0]
        prompt = TEMPLATES[name].format(text=f"Review sentence {number}.")
        assert rendered(task, row) == (prompt, answers, gold)


def test_the_two_wordings_draw_the_same_rows(own_task):
    tasks = [load_task(own_task(name), protocol="heldout", seed=0)
             for name in ("movie_reviews", "movie_reviews_capital")]  # fmt: skip
    lower, capital = ([task.rows(split)["text"] for split in ("identify", "select", "test")]
                      for task in tasks)  # fmt: skip
    assert lower == capital


@pytest.mark.parametrize(
    ("name", "metric"),
    [("copa", "paper_match"), ("movie_reviews", "paper_match"), ("triviaqa", "exact_match"),
     ("toxigen", "toxicity"), ("truthfulqa", "mc1")],
)  # fmt: skip
def test_select_by_paper_is_the_metric_that_the_paper_prints(own_task, name, metric):
    task = load_task(own_task(name, "task.n_test=4"), protocol="heldout", seed=0)
    assert selecting_metric(RunConfig(task=task.spec, select_by="paper"), task) == metric
