"""Fetch a file of the package index with pip, check it, and keep it in the user's cache folder."""

import logging
import os
import subprocess
import sys
from pathlib import Path

from sadi_bench.aside import making
from sadi_bench.disk import cache_folder, sync
from sadi_bench.disk import sha256 as sha256_of
from sadi_bench.errors import SettingError
from sadi_bench.sealed import set_aside

log = logging.getLogger(__name__)

NO_ROOM = ("No space left on device", "Disk quota exceeded", "Read-only file system",
           "Permission denied", "File too large")  # fmt: skip


def fetch_package(
    requirement: str, sha256: str, *, binary: bool, setting: str = "SADI_BENCH_CACHE"
) -> Path:
    """Return the cached wheel (`binary`) or sdist of `requirement`, downloading it at most once.

    `setting` opens the error message: what the user asked for when this package was needed. Of two
    processes one downloads, and the other waits and takes its file.
    """
    folder = cache_folder() / "packages" / sha256
    if (cached := _whole(folder, sha256)) is not None:
        return cached
    try:
        with making(folder) as aside:
            if (cached := _whole(folder, sha256)) is not None:
                return cached
            for damaged in sorted(folder.glob("*"))[:1]:
                log.warning("%s: not what its folder's SHA-256 says; it is fetched again", damaged)
                set_aside(folder)
            downloaded = _download(requirement, sha256, binary, setting, aside)
            sync(downloaded)
            folder.mkdir(exist_ok=True)
            target = folder / downloaded.name
            os.replace(downloaded, target)
            sync(folder)
    except OSError as error:
        raise SettingError(
            f"{setting}: could not keep {requirement} in {folder.parent} ({error.strerror}); "
            "set SADI_BENCH_CACHE to a folder that can be written and has room."
        ) from error
    return target


def _whole(folder: Path, sha256: str) -> Path | None:
    found = (file for file in sorted(folder.glob("*")) if sha256_of(file) == sha256)
    return next(found, None)


def _download(requirement: str, sha256: str, binary: bool, setting: str, aside: Path) -> Path:
    """Run pip into the folder `aside` and return the one file it leaves there."""
    # As a hashed requirement, pip checks the file before it runs any code of an sdist.
    asked = aside / "requirement.txt"
    asked.write_text(f"{requirement} --hash=sha256:{sha256}\n")
    name = requirement.partition("==")[0]
    kind = ["--only-binary", name] if binary else ["--no-binary", name]
    into = aside / "files"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", *kind]
    command += ["--disable-pip-version-check", "--dest", str(into), "--requirement", str(asked)]
    sys.stderr.write(f"Downloading {requirement} with pip (once; kept in {cache_folder()})\n")
    # On a terminal pip draws its own progress bar on what we hand it as standard output.
    shown = sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL
    finished = subprocess.run(
        command, stdout=shown, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, check=False
    )
    files = sorted(into.glob("*")) if into.is_dir() else []
    if finished.returncode or len(files) != 1:
        raise SettingError(_failure(setting, requirement, sha256, finished.stderr.decode()))
    if sha256_of(files[0]) != sha256:
        raise SettingError(_failure(setting, requirement, sha256, "DO NOT MATCH THE HASHES"))
    return files[0]


def _failure(setting: str, requirement: str, sha256: str, stderr: str) -> str:
    """Say what failed and what to do, from pip's own words."""
    manual = f"or put the file into {cache_folder() / 'packages' / sha256} by hand"
    if "No module named pip" in stderr:
        remedy = f"this Python has no pip: run `{sys.executable} -m ensurepip`, {manual}."
    elif "DO NOT MATCH THE HASHES" in stderr:
        remedy = (
            f"the file offered has not the sha256 {sha256}, so it was thrown away; check which "
            f"package index pip is set to, {manual}."
        )
    elif full := next((reason for reason in NO_ROOM if reason in stderr), None):
        remedy = (
            f"{full}; set SADI_BENCH_CACHE to a folder that can be written and has room (pip also "
            "needs some in TMPDIR)."
        )
    else:
        errors = [line for line in stderr.splitlines() if line.startswith("ERROR")]
        reason = (errors or stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        remedy = f"{reason} Check the network and pip's settings, {manual}."
    return f"{setting}: could not download {requirement}: {remedy}"
