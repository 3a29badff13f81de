"""Original file formats give rows as the hub does; a broken row says where and why."""

from pathlib import Path

import pytest

from sadi_bench.tasks.readers import READERS
from sadi_bench.tasks.readers.lines import BrokenRow

COPA = '<copa-corpus version="1.0">\n<item id="1" asks-for="{asks}" most-plausible-alternative="{right}">\n<p>P.</p><a1>A.</a1><a2>B.</a2></item>\n</copa-corpus>'  # noqa: E501
STORY_HEADER = "InputStoryid,InputSentence1,InputSentence2,InputSentence3,InputSentence4,RandomFifthSentenceQuiz1,RandomFifthSentenceQuiz2,AnswerRightEnding\n"  # noqa: E501


def read(reader: str, text: str, path: str = "anatomy_test.csv") -> list:
    return list(READERS[reader](text, Path(path)))


def test_copa_labels_count_from_zero():
    text = COPA.format(asks="cause", right=2)
    expected = {"id": 1, "question": "cause", "label": 1, "premise": "P.", "choice1": "A.",
                "choice2": "B."}  # fmt: skip
    assert read("copa", text) == [(2, expected)]


def test_copa_refuses_entity_declarations():
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa">]>' + COPA.format(asks="cause", right=1)
    with pytest.raises(BrokenRow, match="no entity declaration"):
        read("copa", bomb)


def test_both_xnli_layouts_give_the_same_rows_and_keep_quotation_marks():
    plain = 'A "b.\tC.\tneutral\n'
    with_header = (
        "genre\tlabel\tsentence1_en\tsentence2_en\tsentence1_my\tsentence2_my\n"
        'g\tneutral\tA "b.\tC.\tx\ty\n'
    )
    expected = {"premise": 'A "b.', "hypothesis": "C.", "label": 1}
    assert [row for _, row in read("xnli", plain)] == [expected]
    assert [row for _, row in read("xnli", with_header)] == [expected]


def test_both_mmlu_layouts_give_the_same_rows():
    letters = '"What,\nthen?",w,x,y,z,C\n'
    indices = "question,choice0,choice1,choice2,choice3,answer\n" + letters.replace("C\n", "2\n")
    expected = {"question": "What,\nthen?", "choices": ["w", "x", "y", "z"], "answer": 2,
                "subject": "high_school_physics"}  # fmt: skip
    for text in (letters, indices):
        assert [row for _, row in read("mmlu", text, "high_school_physics_dev.csv")] == [expected]


def test_trees_and_lines_give_the_same_sst_rows():
    tree = "(4 (2 A) (3 (2 -LRB-) (2 film)))\n(2 (2 So) (2 so))\n(1 (1 Bad) (2 .))\n"
    lines = "4 a -lrb- film\n2 so so\n1 bad .\n"
    assert read("sst5", tree) == read("sst5", lines)
    binary = [(1, {"text": "a -lrb- film", "label": 1}), (3, {"text": "bad .", "label": 0})]
    assert read("sst2", tree) == binary


def test_boolq_takes_the_title_off_a_superglue_passage():
    superglue = '{"question": "q", "passage": "T -- P -- Q.", "label": false}\n'
    ((_, row),) = read("boolq", superglue)
    assert (row["passage"], row["answer"]) == ("P -- Q.", False)


def test_movie_reviews_keep_the_sign_of_strong_ratings_only():
    text = "1\t2.26\tGood.\r\n2\t-0.99\tMeh.\r\n3\t-1.0\tBad.\r\n"
    assert read("movie_reviews", text) == [
        (1, {"id": 1, "text": "Good.", "label": 1}),
        (3, {"id": 3, "text": "Bad.", "label": 0}),
    ]


def test_a_line_separator_inside_a_text_does_not_end_the_row():
    ((_, row),) = read("jsonl", '{"a": "one\u2028two"}\r\n')
    assert row == {"a": "one\u2028two"}


@pytest.mark.parametrize(
    ("reader", "text", "line", "expected"),
    [
        ("jsonl", '{"a": 1}\n{"a": \n', 2, "one JSON object a line"),
        ("jsonl", "[1]\n", 1, "one JSON object a line"),
        ("copa", COPA.format(asks="why", right=1), 2, "asks-for=cause|effect"),
        ("copa", COPA.format(asks="cause", right=3), 2, "most-plausible-alternative=1|2"),
        ("copa", "<copa-corpus>\n<item>", 2, "well-formed XML"),
        ("storycloze", "a,b\n", 1, "a header with InputStoryid"),
        ("storycloze", STORY_HEADER + "i,1,2,3,4,e,f,1\ni,1,2,3,4,e,f,3\n", 3, "1 or 2"),
        ("storycloze", STORY_HEADER + "i,1,2\n", 2, "8 fields (found 3)"),
        ("xnli", "a\tb\tneutral\na\tb\tmaybe\n", 2, "neutral, contradiction (found 'maybe')"),
        ("xnli", "sentence1_en\tlabel\na\tneutral\n", 1, "a header with sentence2_en"),
        ("mmlu", "q,w,x,y,z,A\nq,w,x,y,z,E\n", 2, "one of A, B, C, D"),
        ("mmlu", "q,w,x,y,A\n", 1, "a question, four choices"),
        ("sst5", "4 fine\n5 no such label\n", 2, "a label, a space and a sentence"),
        ("sst2", "2 not binary\n", 1, "label 0 or 1"),
        ("movie_reviews", "1\tx\ttext\n", 1, "tab-separated id, rating and text"),
    ],
)
def test_a_broken_row_names_its_line_and_what_was_expected(reader, text, line, expected):
    with pytest.raises(BrokenRow) as caught:
        read(reader, text)
    assert caught.value.line == line
    assert expected in caught.value.expected
