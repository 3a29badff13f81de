"""Let a model write unsteered and steered, and show both texts side by side."""

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from textwrap import wrap

from sadi_bench.errors import SettingError
from sadi_bench.models.language_model import LanguageModel
from sadi_bench.results.formatting import MAX_WIDTH, parameters
from sadi_bench.results.formatting import side_by_side as joined
from sadi_bench.scoring.generation import generate
from sadi_bench.scoring.writing import Generated, GenerationRequest
from sadi_bench.steering.intervention import AnswerBias, Intervention
from sadi_bench.steering.origin import check_model, template_note
from sadi_bench.steering.watch import check_unwatched

UNSTEERED, STEERED = 0, 1
"""The cells of an intervention that was cut down to one."""
LABELS = ("unsteered", "steered")
GAP = "    "
HALF = (MAX_WIDTH - len(GAP)) // 2
SHORT = 8
"""Lines of half the width that a text may have to stand beside the other."""
LONG_CHAT = 40
NOTHING = "(no text)"
OVERFLOW = "(no text: numbers overflowed)"
LEAVE = "exit"


def side_by_side(
    lm: LanguageModel,
    steering: Intervention,
    cell: int,
    prompts: Sequence[str],
    max_new_tokens: int = 40,
    until: Sequence[str] = (),
) -> str:
    """Write behind every prompt, greedily, unsteered and in one cell; returns text to print.

    At most 100 columns wide. Prompts are wrapped in the chat template where the model was loaded
    with it. Blank prompts are left out.

    Raises:
        SettingError: there is nothing to compare, or a prompt does not fit into the context.
    """
    one = _one_cell(lm, steering, cell)
    prompts = [prompt for prompt in prompts if prompt.strip()]
    if not prompts:
        raise SettingError('prompt: nothing to write behind; say prompt="...", or pipe lines.')
    requests = requests_behind(lm, prompts, max_new_tokens, until)
    written = generate(lm, requests, one, [UNSTEERED, STEERED])
    lines = _heading(lm, steering, cell)
    for prompt, found in zip(prompts, written, strict=True):
        lines += ["", *_lines(f"prompt: {prompt}"), ""]
        lines += beside(_told(found[UNSTEERED]), _told(found[STEERED]))
    return "\n".join(line.rstrip() for line in lines) + "\n"


@dataclass
class _Side:
    """Hold one side of a chat: each remembers its own answers."""

    cell: int
    history: list[dict[str, str]] = field(default_factory=list)

    def answer(self, lm: LanguageModel, one: Intervention, said: str, longest: int) -> str:
        history = [*self.history, {"role": "user", "content": said}]
        request = _request(lm, lm.render_chat(history), longest, ())
        found = generate(lm, [request], one, [self.cell])[0][self.cell]
        self.history = [*history, {"role": "assistant", "content": found.text.strip()}]
        return _told(found)


def chat_loop(
    lm: LanguageModel,
    steering: Intervention,
    cell: int,
    lines: Iterable[str],
    write: Callable[[str], None],
    max_new_tokens: int = LONG_CHAT,
) -> None:
    """Answer every line twice, unsteered and steered, each with a history of its own.

    Ends with the lines, or at a line "exit".

    Raises:
        SettingError: the tokenizer has no chat template, or a history fills the context.
    """
    one = _one_cell(lm, steering, cell)
    if lm.tokenizer.chat_template is None:
        raise SettingError(
            f"--chat: the tokenizer of {lm.name} has no chat template; leave --chat out, or choose "
            "a model that was trained to chat."
        )
    sides = (_Side(UNSTEERED), _Side(STEERED))
    write("\n".join([*_heading(lm, steering, cell, chat=True), f'A line "{LEAVE}" ends the chat.']))
    for line in lines:
        said = line.strip()
        if said == LEAVE:
            return
        if said:
            answers = [side.answer(lm, one, said, max_new_tokens) for side in sides]
            write("\n".join(["", *_lines(f"you: {said}"), "", *beside(*answers)]))


def _one_cell(lm: LanguageModel, steering: Intervention, cell: int) -> Intervention:
    """Keep the chosen cell; refuse what would show the same text twice."""
    check_model(steering.origin, lm)
    check_unwatched(lm.network)
    if isinstance(steering, AnswerBias):
        raise SettingError(
            "apply: this method adds constants to answers' log-probabilities and changes no text "
            "that a model writes; choose a run of another method."
        )
    if cell == UNSTEERED:
        raise SettingError("cell=0: that is the unsteered model itself; choose another cell.")
    return steering.only(cell)


def requests_behind(
    lm: LanguageModel, prompts: Sequence[str], max_new_tokens: int, until: Sequence[str] = ()
) -> list[GenerationRequest]:
    """Ask for a text behind each prompt, in the chat template if the model was loaded with it.

    Raises:
        SettingError: a prompt and its text do not fit into the context.
    """
    if lm.chat:
        prompts = [lm.render_chat([{"role": "user", "content": prompt}]) for prompt in prompts]
    return [_request(lm, prompt, max_new_tokens, until) for prompt in prompts]


def _request(
    lm: LanguageModel, text: str, max_new_tokens: int, until: Sequence[str]
) -> GenerationRequest:
    tokens = tuple(lm.encode(text))
    needed = len(tokens) + max_new_tokens
    if needed > lm.max_length:
        raise SettingError(
            f"max_new_tokens={max_new_tokens}: with a prompt of {len(tokens):,} tokens that is "
            f"{needed:,}, the context of {lm.name} {lm.max_length:,}; choose fewer, or begin with "
            "a shorter prompt."
        )
    return GenerationRequest(tokens, max_new_tokens, tuple(until))


def _heading(lm: LanguageModel, steering: Intervention, cell: int, chat: bool = False) -> list[str]:
    """Say what is steered by what: model, method, cell with its parameters and its row."""
    origin = steering.origin
    named = [row for row, number in (origin.chosen if origin else {}).items() if number == cell]
    method = f", {origin.method['name']}" if origin else ""
    rows = f" ({', '.join(named)})" if named else ""
    text = f"{lm.name}{method}; cell {cell}{rows}: {parameters(dict(steering.cells[cell].params))}"
    notes = () if chat else template_note(origin, lm)
    return [line for part in (text, *notes) for line in _lines(part)]


def beside(unsteered: str, steered: str) -> list[str]:
    """Put two short texts beside each other, longer ones one below the other."""
    narrow = [_lines(text, HALF) for text in (unsteered, steered)]
    if all(map(_one_column_a_letter, (unsteered, steered))) and max(map(len, narrow)) <= SHORT:
        blocks = [[label, *lines] for label, lines in zip(LABELS, narrow, strict=True)]
        height = max(map(len, blocks))
        padded = [[line.ljust(HALF) for line in [*b, *[""] * (height - len(b))]] for b in blocks]
        return joined(*padded, gap=GAP)
    pairs = zip(LABELS, (unsteered, steered), strict=True)
    return [line for label, text in pairs for line in (f"{label}:", *_lines(text), "")][:-1]


def _told(found: Generated) -> str:
    if not found.finite:
        return OVERFLOW
    return found.text if found.text.strip() else NOTHING


def _lines(text: str, width: int = MAX_WIDTH) -> list[str]:
    """Break a text into lines that fit; a letter of two columns counts as two."""
    if not _one_column_a_letter(text):
        width //= 2
    lines = [wrap(printable(line), width) or [""] for line in text.strip().split("\n")]
    return [line for wrapped in lines for line in wrapped]


def _one_column_a_letter(text: str) -> bool:
    wide = any(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return not wide and not any(map(unicodedata.combining, text))


def printable(text: str) -> str:
    """Write control characters as escapes: a model's text must not steer the terminal."""
    spaced = text.replace("\t", " ")
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in spaced)
