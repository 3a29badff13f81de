"""apply: the model of a run writes unsteered and steered, in columns that fit, or in a chat."""

from dataclasses import replace
from pathlib import Path
from unicodedata import east_asian_width

import pytest
import torch
import yaml

import sadi_bench as sb
from cases import plain_logits, tiny_lm
from sadi_bench.applying import beside, chat_loop, printable, side_by_side
from sadi_bench.errors import SettingError
from sadi_bench.models.language_model import weights_digest
from sadi_bench.run_models import model_of_run
from sadi_bench.steering.intervention import Intervention
from terminal import command, place_of_runs, small_run

STRONG = ("method.top_k=[3,1]", "method.strength=[50,-20]")
PROMPTS = ["is dev number 3 so", "yes"]
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    yield from place_of_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def run(place) -> Path:
    return small_run(place, *STRONG).path


@pytest.fixture
def lm(run):
    return model_of_run(run)


@pytest.fixture
def steering(run):
    return Intervention.load(run)


def flat(text: str) -> str:
    """What was wrapped, without its white space."""
    return "".join("".join(printable(line).split()) for line in text.strip().split("\n"))


def columns(text: str) -> tuple[str, str]:
    """Read both texts, beside each other or one below the other."""
    if "unsteered:\n" in text:
        below = text.split("unsteered:\n")[1].split("\nsteered:\n")
        return tuple("".join(part.split()) for part in below)
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("unsteered  "))
    at = lines[start].index("steered", 5)
    return tuple("".join("".join(line[part].split()) for line in lines[start + 1 :])
                 for part in (slice(0, at), slice(at, None)))  # fmt: skip


def test_short_texts_stand_beside_each_other_and_are_what_the_model_writes(lm, steering):
    for prompt in PROMPTS:
        found = columns(side_by_side(lm, steering, 2, [prompt], max_new_tokens=20))
        plain = sb.generate(lm, prompt, max_new_tokens=20)
        steered = sb.generate(lm, prompt, steering, cell=2, max_new_tokens=20)
        assert found == (flat(plain[0]), flat(steered[0]))
        assert found[0] != found[1]


LONG, WIDE, WORD = "to be or not " * 60, "水" * 120, "x" * 300
TEXTS = ["yes", LONG, WIDE, WORD, WORD[:90], "一", "é" * 99, "e\u0301" * 99]


def test_long_texts_stand_one_below_the_other_and_short_ones_do_not():
    assert "unsteered:" in beside(LONG, "short")
    assert "steered:" in beside("short", LONG)
    assert beside("left", "right")[1].split() == ["left", "right"]
    assert columns("\n".join(beside(LONG, WIDE))) == (flat(LONG), WIDE)


@pytest.mark.parametrize(
    "one", ["yes", LONG, WIDE, WORD, WORD[:90], "一", "é" * 99, "e\u0301" * 99]
)
@pytest.mark.parametrize("other", ["no", LONG, "一" * 30])
def test_no_line_is_wider_than_100_columns(one, other):
    for line in beside(one, other):
        assert sum(1 + (east_asian_width(letter) in "WF") for letter in line) <= 100


def test_a_long_prompt_is_wrapped_too(lm, steering):
    text = side_by_side(lm, steering, 1, [WIDE, WORD, LONG], max_new_tokens=1)
    assert max(len(line) + line.count("水") for line in text.splitlines()) <= 100


def test_the_cells_parameters_and_who_chose_it_are_said(lm, steering):
    cell = steering.cell_of("heldout")
    first = side_by_side(lm, steering, cell, PROMPTS, max_new_tokens=2).splitlines()[0]
    params = steering.cells[cell].params
    assert first.startswith(f"tiny-random, sadi-head; cell {cell} (heldout")
    assert all(f"{name}={value}" in first for name, value in params.items())


def test_a_text_ends_before_what_until_names(lm, steering):
    plain = sb.generate(lm, PROMPTS[0], max_new_tokens=20)[0]
    at = next(i for i in range(3, 20) if plain[i].isascii() and plain[i] not in plain[:i])
    found = columns(side_by_side(lm, steering, 2, PROMPTS[:1], 20, until=[plain[at]]))
    assert found[0] == flat(plain[:at])


def test_a_texts_control_characters_do_not_reach_the_terminal(lm, steering):
    text = side_by_side(lm, steering, 1, ["a\x1b[2Jb\rc"], max_new_tokens=40)
    assert r"prompt: a\x1b[2Jb\rc" in text
    assert all(letter.isprintable() or letter == "\n" for letter in text)


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ({"cell": 0}, "cell=0: that is the unsteered model itself"),
        ({"prompts": ["", "  "]}, "prompt: nothing to write behind"),
        ({"max_new_tokens": 4096}, "max_new_tokens=4096: with a prompt of 18 tokens that is 4,114"),
        ({"lm": tiny_lm("gpt2")}, "it was learnt from tiny-random"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(lm, steering, typed, why):
    given = {"lm": lm, "steering": steering, "cell": 1, "prompts": PROMPTS, **typed}
    with pytest.raises(SettingError, match=why):
        side_by_side(**given)


def test_a_method_that_changes_no_text_is_refused(place, lm):
    path = small_run(place, "method=calibrate").path
    with pytest.raises(SettingError, match="changes no text"):
        side_by_side(lm, Intervention.load(path), 1, PROMPTS)


def test_each_side_of_a_chat_remembers_its_own_answers(lm, steering):
    lm.tokenizer.chat_template = TEMPLATE
    written = []
    chat_loop(lm, steering, 2, ["one\n", "\n", "two\n", "exit\n", "three\n"], written.append, 12)
    assert len(written) == 3  # the heading and two answers
    for cell in (0, 2):
        history = []
        for said, answers in zip(("one", "two"), written[1:], strict=True):
            history.append({"role": "user", "content": said})
            prompt = lm.render_chat(history)
            text = sb.generate(lm, prompt, steering, cell=cell, max_new_tokens=12)[0]
            assert columns(answers)[cell > 0] == flat(text.strip())
            history.append({"role": "assistant", "content": text.strip()})
    assert "you: two" in written[2]


def test_a_chat_without_a_template_is_refused_before_a_line_is_read(lm, steering):
    with pytest.raises(SettingError, match="--chat: the tokenizer of tiny-random has no chat"):
        chat_loop(lm, steering, 1, iter(lambda: pytest.fail("a line was read"), None), print)


def test_prompts_are_wrapped_where_the_runs_were(lm, steering):
    lm.tokenizer.chat_template = TEMPLATE
    wrapped = replace(lm, chat=True)
    text = side_by_side(wrapped, steering, 2, ["yes"], max_new_tokens=20)
    plain = sb.generate(lm, "<user>yes<assistant>", max_new_tokens=20)[0]
    assert columns(text)[0] == flat(plain)
    assert "learnt from prompts without a chat template" in " ".join(text.split())


def test_a_runs_model_is_loaded_again_as_it_was(lm, steering):
    assert lm.digest == steering.origin.model["digest"]
    assert torch.isfinite(plain_logits(lm, [1, 2, 3])).all()
    assert (lm.name, lm.dtype, lm.chat) == ("tiny-random", torch.float32, False)


def test_a_fine_tuned_model_is_its_checkpoint_and_a_line_says_where_that_is_gone(place):
    path = small_run(place, "finetune=sft", "finetune.learning_rate=1e-3", *STRONG).path
    tuned, learnt = model_of_run(path), Intervention.load(path)
    assert weights_digest(tuned.network) == learnt.origin.model["digest"]
    assert tuned.finetune["kind"] == "sft"
    side_by_side(tuned, learnt, 1, PROMPTS, max_new_tokens=2)
    kept = place / "cache" / "finetuned" / tuned.finetune["checkpoint"]
    kept.rename(kept.with_suffix(".away"))
    with pytest.raises(SettingError, match="is no longer in the cache; compute the run again"):
        model_of_run(path)


def test_settings_of_another_version_are_one_line(run, tmp_path):
    for name in ("config.yaml", "result.json"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    for model in ({**config["model"], "shine": 1}, {**config["model"], "package": {"a": 1}}, None):
        (tmp_path / "config.yaml").write_text(yaml.safe_dump({**config, "model": model}))
        with pytest.raises(SettingError, match="settings are not of this version"):
            model_of_run(tmp_path)


def test_the_command_prints_both_texts(run):
    finished = command("apply", str(run), "prompt=yes", "cell=2", "max_new_tokens=5")
    assert finished.code == 0, finished.err
    assert finished.out.startswith("tiny-random, sadi-head; cell 2")
    assert "prompt: yes" in finished.out
