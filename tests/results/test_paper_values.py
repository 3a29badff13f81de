import pytest

from sadi_bench.results.paper import paper_figures, paper_metric, paper_tables, paper_value


def test_all_rows_are_in_the_package():
    assert (len(paper_tables()), len(paper_figures())) == (306, 140)
    assert paper_tables()["value"].between(0, 100).all()


@pytest.mark.parametrize(
    "names, value, table",
    [
        (("copa", "llama2-7b", "sadi-head"), 78.80, 1),
        (("copa", "llama2-7b", "none"), 70.80, 1),
        (("storycloze", "llama2-7b", "sadi-head"), 79.75, 1),
        (("copa", "llama2-7b", "random-head"), 72.40, 4),
        (("boolq", "mistral-7b", "sadi-hidden"), 49.43, 5),
        (("nli", "falcon-7b-instruct", "none"), 52.29, 5),
        (("copa", "bloomz-560m", "sadi-head"), 54.4, 6),
        (("mmlu_stem", "llama2-7b", "sadi-neuron"), 37.46, 2),
    ],
)
def test_our_names_find_the_papers_number(names, value, table):
    found = paper_value(*names)
    assert (found.value, found.table, found.note) == (value, table, "")


def test_shots_and_metric_are_part_of_the_question():
    assert paper_value("sst5", "llama2-7b", "sadi-head", shots=0).value == 35.43
    assert paper_value("sst5", "llama2-7b", "sadi-head", shots=5).value == 54.07
    assert paper_value("sst5", "llama2-7b", "sadi-head", shots=1) is None
    assert paper_value("copa", "llama2-7b", "sadi-head", metric="acc") is None


@pytest.mark.parametrize("metric", ["exact_match", "acc", "acc_norm", "auc", "acc_biased"])
def test_the_papers_exact_match_stands_beside_paper_match_alone(metric):
    assert paper_value("copa", "llama2-7b", "sadi-head", metric) is None
    assert paper_value("copa", "llama2-7b", "sadi-head", "paper_match").value == 78.80


def test_the_papers_exact_match_of_triviaqa_is_the_one_of_texts():
    assert paper_value("triviaqa", "llama2-7b", "sadi-head", "exact_match").value == 44.00
    assert paper_value("triviaqa", "llama2-7b", "sadi-head", "paper_match") is None


def test_the_papers_metric_of_a_task_is_paper_match_or_its_first():
    assert paper_metric(["acc", "acc_norm", "exact_match", "paper_match"]) == "paper_match"
    assert paper_metric({"mc1": True, "mc2": True}) == "mc1"


def test_xcopa_is_told_apart_by_the_language_of_its_pairs():
    assert paper_value("xcopa_tr", "llama2-7b", "sadi-neuron").value == 50.60
    assert paper_value("xcopa_tr", "llama2-7b", "sadi-neuron", english_pairs=True).value == 59.60


def test_movie_reviews_has_no_number_and_never_sst2s():
    for model in ("llama2-7b", "smollm2-135m"):
        assert paper_value("movie_reviews", model, "sadi-head") is None
    assert paper_value("sst2", "llama2-7b", "sadi-head").value == 92.20


@pytest.mark.parametrize(
    "names, options, note",
    [
        (("copa", "bloomz-7b1", "sadi-head"), {}, "Table 6 prints 78.80"),
        (("copa", "llama2-7b", "sft+sadi-hidden"), {}, "cannot be reached with 500"),
        (("xcopa_zh", "llama2-7b", "sadi-head"), {}, "cannot be reached with 500"),
        (
            ("toxigen", "llama2-7b", "iti"),
            {"metric": "toxicity", "shots": 5},
            "cannot be reached with 1400",
        ),
        (("truthfulqa", "llama2-7b", "sadi-head"), {"metric": "mc1", "shots": 5}, "35.99"),
    ],
)
def test_odd_numbers_are_given_as_printed_with_a_note(names, options, note):
    assert note in paper_value(*names, **options).note
