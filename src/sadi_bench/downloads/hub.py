"""Whether the model hub answers, asked first, so that nobody waits through its client's retries."""

from huggingface_hub import constants, get_session


def hub_answers() -> bool:
    """Say within five seconds whether the hub may be asked, and is there."""
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:  # the HTTP library differs between versions of the hub's client
        return False
    return True


def hub_silence() -> str:
    """Say why the hub was not asked."""
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    return f"{constants.ENDPOINT} does not answer"
