"""JSON that every parser reads: no NaN, no Infinity, no NumPy."""

import json
import math
from collections.abc import Mapping
from pathlib import PurePath

import numpy as np
import pandas as pd


def to_strict_json(value: object, indent: int | None = 2) -> str:
    """Return `value` as JSON text; what is not a finite number becomes null.

    Takes mappings, sequences, NumPy and pandas scalars and arrays, and paths.

    Raises:
        TypeError: for anything else, rather than to write its repr into a result.
    """
    return json.dumps(_plain(value), indent=indent, ensure_ascii=False, allow_nan=False)


def json_bytes(value: object, indent: int | None = 2) -> bytes:
    """Encode as UTF-8; a lone surrogate, which UTF-8 cannot hold, is written as its JSON escape."""
    return to_strict_json(value, indent).encode("utf-8", errors="backslashreplace")


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {_key(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, PurePath):
        return str(value)
    if value is pd.NA or value is pd.NaT or isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _key(key: object) -> object:
    return key.item() if isinstance(key, np.generic) else key
