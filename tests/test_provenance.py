"""The digest of the code: it follows the named parts, and nothing else."""

import shutil
from importlib.metadata import version

import pytest

from sadi_bench.provenance import PACKAGE, library_versions, source_digest

PARTS = "models", "steering/activations.py"


@pytest.fixture
def edited(tmp_path):
    """Return the digest of a copy of the package in which some files were edited or added."""
    copies = iter(range(9))

    def digest(**edits):
        copy = tmp_path / str(next(copies))
        shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        for path, line in edits.items():
            with (copy / path).open("a") as file:
                file.write(line)
        return source_digest(*PARTS, package=copy)

    return lambda path, line="# edited\n": digest(**{path: line})


def test_a_file_of_another_part_keeps_the_digest(edited):
    assert edited("results/tables.py") == source_digest(*PARTS)
    assert edited("steering/elements.py") == source_digest(*PARTS)


@pytest.mark.parametrize("path", ["models/packing.py", "steering/activations.py"])
def test_a_file_of_a_named_part_changes_the_digest(edited, path):
    assert edited(path) != source_digest(*PARTS)


def test_a_new_file_changes_the_digest_even_where_it_is_empty(edited):
    assert edited("models/new.py", "") != source_digest(*PARTS)


def test_the_order_of_the_parts_and_a_file_named_twice_do_not_matter():
    assert source_digest(*PARTS) == source_digest(*reversed(PARTS))
    assert source_digest("models") == source_digest("models", "models/packing.py")


def test_a_part_that_does_not_exist_is_refused():
    with pytest.raises(FileNotFoundError, match="no such part"):
        source_digest("no_such_folder")


def test_versions_are_named_for_each_library_that_computes():
    versions = library_versions()
    assert list(versions) == ["torch", "transformers", "tokenizers", "lm_eval"]
    assert versions["transformers"] == version("transformers")
