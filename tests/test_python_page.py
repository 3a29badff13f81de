"""docs/python.md: every block runs, from top to bottom, on a model made in memory."""

import re
from pathlib import Path

import pytest

import sadi_bench as sb

PAGE = Path(__file__).parents[1] / "docs" / "python.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What each block prints; the page's model is replaced by tiny-random."""
    folder, printed = tmp_path_factory.mktemp("page"), []
    names = {"print": lambda *values: printed[-1].append(" ".join(map(str, values)))}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SADI_BENCH_CACHE", str(folder / "cache"))
        for block in BLOCKS:
            printed.append([])
            exec(block.replace("smollm2-135m", "tiny-random"), names)
    return ["\n".join(lines) for lines in printed]


def test_the_page_has_blocks_for_all_that_is_public():
    for name in {*sb.__all__} - {"__version__"}:
        assert f"sb.{name}(" in "".join(BLOCKS) or f"sb.{name}." in "".join(BLOCKS), name


def test_every_block_that_prints_prints_something(printed):
    for block, text in zip(BLOCKS, printed, strict=True):
        assert ("print(" in block) == bool(text.strip())


def test_the_steered_run_and_the_last_prompt_token_are_shown(printed):
    assert any("held-out cell" in text for text in printed)
    rows = printed[-1].replace("[", "").replace("]", "").replace("tensor(", "").split(",\n")
    for row in rows:
        flags = [word.strip(" )") == "True" for word in row.split(",")]
        assert not any(flags[:6])
        assert all(flags[6:])
