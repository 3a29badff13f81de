"""A grid as a Parquet file: written some documents at a time, read a column at a time.

10,000 documents in 96 cells are 960,000 rows. No frame of them all is needed to write them, nor to
read the few columns that a report asks for.
"""

import json
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

ATTRS = b"PANDAS_ATTRS"  # pandas' own name for a frame's attrs in a file


def write_pieces(file: BinaryIO, pieces: Iterable[pd.DataFrame]) -> None:
    """Write frames of the same columns one below the other, each as row groups of its own.

    Types and attrs are those of the first piece, which there must be.
    """
    rest = iter(pieces)
    first = next(rest)
    schema = _schema(first)
    with pq.ParquetWriter(file, schema) as writer:
        for piece in chain([first], rest):
            writer.write_table(pa.Table.from_pandas(piece, schema=schema, preserve_index=False))


def whole_frame(pieces: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Put the pieces into one frame, as the file would be read."""
    found = list(pieces)
    frame = pd.concat(found, ignore_index=True)
    categories = [name for name in frame if isinstance(found[0][name].dtype, pd.CategoricalDtype)]
    frame = frame.astype(dict.fromkeys(categories, "category"))
    frame.attrs = found[0].attrs
    return frame


def _schema(piece: pd.DataFrame) -> pa.Schema:
    """Read the types off a piece; every piece numbers its categories in the same type."""
    schema = pa.Schema.from_pandas(piece, preserve_index=False)
    for place, field in enumerate(schema):
        if pa.types.is_dictionary(field.type):
            wide = pa.dictionary(pa.int32(), field.type.value_type)
            schema = schema.set(place, field.with_type(wide))
    # Not pandas' description of the columns: it counts the categories of this piece.
    return schema.with_metadata({ATTRS: json.dumps(piece.attrs)})


class ParquetColumns:
    """Read one column of a file at a time, under the names that a frame of it has.

    Offers what a report needs of a frame: columns, attrs, `name in grid`, `grid[name]`. Lists of
    numbers stay in Arrow's memory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        schema = pq.read_schema(path)
        self.columns: list[str] = schema.names
        self.attrs: dict[str, Any] = json.loads((schema.metadata or {}).get(ATTRS, b"{}"))

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def __getitem__(self, name: str) -> pd.Series:
        if name not in self.columns:
            raise KeyError(name)
        with pq.ParquetFile(self.path) as file:
            table = file.read(columns=[name])
        return table.to_pandas(types_mapper=_lists_as_they_are)[name]


Columns = pd.DataFrame | ParquetColumns
"""A grid in memory, or in its file."""


def _lists_as_they_are(kind: pa.DataType) -> pd.ArrowDtype | None:
    return pd.ArrowDtype(kind) if pa.types.is_list(kind) else None
