"""The exceptions that a user is meant to read."""

import difflib
import errno
from collections.abc import Iterable

MOST_LISTED = 20  # more names than this are not listed where near ones are found
# A place that is full, read-only or forbidden is the user's to mend, wherever it is found out.
PLACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM,
         errno.ENOTDIR, errno.EEXIST}  # fmt: skip


class SettingError(ValueError):
    """Say in one line which setting is wrong, its value, the bound and the remedy.

    The command prints the message without a traceback and exits with code 2.
    """


class SweepFailed(Exception):
    """Say in one line that runs of a sweep failed; the command exits with code 1."""


def user_line(error: Exception) -> str | None:
    """Put a user's mistake in one line; None for a mistake of this program."""
    if isinstance(error, SettingError):
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in PLACE:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}; make room there or choose a place you can write to."
    return None


def unknown_name(setting: str, name: str, known: Iterable[str]) -> SettingError:
    """Build the error for a value that is not among `known`, naming the nearest ones."""
    return SettingError(f"{setting}={name}: unknown. {_nearest(name, known)}")


def unknown_key(group: str, key: str, known: Iterable[str]) -> SettingError:
    """Build the error for a setting that `group` ("" is the top) does not have."""
    setting = f"{group}.{key}" if group else key
    return SettingError(f"{setting}: no such setting. {_nearest(key, known)}")


def _nearest(name: str, known: Iterable[str]) -> str:
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?"
    if near and len(known) > MOST_LISTED:
        return hint
    listed = f"Known: {', '.join(known) or 'none'}."
    return f"{hint} {listed}" if near else listed
