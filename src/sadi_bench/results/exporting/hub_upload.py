"""Put an exported folder into a repository of the hub, in one commit."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import HFValidationError, HTTPError
from huggingface_hub.utils import validate_repo_id

from sadi_bench.downloads.hub import hub_answers, hub_silence
from sadi_bench.errors import SettingError
from sadi_bench.results.exporting.exported import LIBRARY

HUB = "hub:"


def check_hub(to: str) -> None:
    """Refuse a name, a hub or a user with whom no upload can succeed, before anything is made."""
    try:
        validate_repo_id(to.removeprefix(HUB))
    except HFValidationError as error:
        raise _refused(to, "no name of a repository; write to=hub:OWNER/NAME") from error
    if to.count("/") != 1:
        raise _refused(to, "name its owner too: to=hub:OWNER/NAME")
    if not hub_answers():
        raise _refused(to, f"{hub_silence()}; export to a folder and upload that later")
    if get_token() is None:
        raise _refused(to, "the hub does not know you; set HF_TOKEN to a token that may write")


def upload(folder: Path, to: str, names: Sequence[str]) -> str:
    """Upload a folder's files and return the repository's address; it is made if it is not there.

    Of `names`, what the folder lacks is deleted: an earlier export's. Other files stay.

    Raises:
        SettingError: the hub refuses, or files of these names there are no export.
    """
    name, api = to.removeprefix(HUB), HfApi()
    with _hub_errors(to):
        url = api.create_repo(name, exist_ok=True)
        info = api.model_info(name)
        there = {file.rfilename for file in info.siblings or []} & set(names)
        if there and (info.card_data or {}).get("library_name") != LIBRARY:
            raise _refused(to, f"{min(there)} is there and was not exported; choose another name")
        files = sorted(folder.iterdir())
        adding = [CommitOperationAdd(file.name, file) for file in files]
        stale = sorted(there - {file.name for file in files})
        deleting = [CommitOperationDelete(file) for file in stale]
        api.create_commit(name, [*adding, *deleting], commit_message=f"Export of {LIBRARY}")
    return str(url)


@contextmanager
def _hub_errors(to: str) -> Iterator[None]:
    try:
        yield
    except SettingError:
        raise
    # ValueError is the hub's verdict on the card.
    except (HTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise _refused(
            to, f"the hub refuses ({reason}); set HF_TOKEN, or export to a folder"
        ) from (error)


def _refused(to: str, why: str) -> SettingError:
    return SettingError(f"to={to}: {why}.")
