import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sadi_bench.results.strict_json import json_bytes, to_strict_json


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def test_what_is_not_a_finite_number_becomes_null():
    value = {"a": float("nan"), "b": [np.float32("inf"), pd.NA, (-np.inf, 1.5)], "c": np.nan}
    text = to_strict_json(value)
    assert json.loads(text, parse_constant=refuse) == {
        "a": None,
        "b": [None, None, [None, 1.5]],
        "c": None,
    }


def test_numpy_and_paths_are_written_as_plain_values():
    value = {"n": np.int64(3), "ok": np.bool_(True), "x": np.array([[1, 2]]), "p": Path("a/b")}
    assert json.loads(to_strict_json(value)) == {"n": 3, "ok": True, "x": [[1, 2]], "p": "a/b"}
    assert json.loads(to_strict_json({np.int64(2): "key"})) == {"2": "key"}


def test_an_unknown_type_is_an_error_and_not_its_repr():
    with pytest.raises(TypeError, match="set"):
        to_strict_json({"a": {1, 2}})


def test_other_scripts_stay_readable_and_a_lone_surrogate_is_escaped():
    content = json_bytes({"text": "สวัสดี", "broken": "a\ud800b"})
    assert "สวัสดี".encode() in content
    assert json.loads(content) == {"text": "สวัสดี", "broken": "a\ud800b"}
