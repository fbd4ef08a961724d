"""Pushing an export to a model hub. The token is the hub library's own, and nothing here prints it."""

import os
from pathlib import Path

from fastslow.errors import ConfigError, FastslowError
from fastslow.runs.owner import MARK


def check_push(repo: str) -> None:
    """Raises ConfigError where the name is none that a hub takes, or nobody is logged in."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ConfigError(f"--push: {repo!r} is no name of a repository, which is OWNER/NAME: {error}") from error
    if get_token() is None:
        raise ConfigError("--push: no token of the hub is here: log in with `hf auth login`, or set HF_TOKEN")


def push_directory(directory: Path, repo: str, *, public: bool, message: str) -> str:
    """Put everything in a directory into a repository, which is made, private unless `public`, where there is none; its
    address. Raises FastslowError where the hub refuses, or cannot be reached.
    """
    from huggingface_hub import HfApi, get_token

    token = get_token() or ""
    try:
        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token or None)
        made = api.create_repo(repo, private=not public, exist_ok=True)
        api.upload_folder(folder_path=str(directory), repo_id=repo, commit_message=message, ignore_patterns=[MARK])
    except Exception as error:  # the library, and the network under it, raise what they like
        words = f"{type(error).__name__}: {error}"
        words = words.replace(token, "[token]") if token else words
        raise FastslowError(
            f"--push: {repo!r} could not be pushed, and {directory} has everything: {words.strip()}"
        ) from None
    return str(made)
