"""The one exception that a user is meant to read."""

import difflib
from collections.abc import Iterable

MOST_LISTED = 20  # more names than this are not listed where near ones are found


class SettingError(ValueError):
    """Say in one line which setting is wrong, its value, the bound and the remedy.

    The command prints the message without a traceback and exits with code 2.
    """


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
