"""Tables of one's own in Parquet files."""

import io
from pathlib import Path

from sadi_bench.tasks.readers.lines import BrokenRow, NumberedRows


def read_parquet(content: bytes, _path: Path) -> NumberedRows:
    """Read a Parquet file; rows are numbered from 0, as on the hub."""
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(io.BytesIO(content))
    except (pyarrow.ArrowInvalid, OSError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise BrokenRow(0, f"a Parquet file ({reason})") from error
    yield from enumerate(table.to_pylist())
