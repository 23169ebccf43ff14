"""The upload to the Hub: what is asked before anything is done, and each way to fail as one sentence."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from synthesis.errors import UserError

MODEL_FILES = [
    "adapter_config.json",
    "adapter_model*.safetensors",
    "config.json",
    "generation_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
]
"""Deleted from the repository where the new folder has no such file: an adapter beside a merged model would be loaded
on top of it, and so be applied twice."""


class Words(NamedTuple):
    """What the user writes to ask for an upload, as messages name it."""

    push: str
    name: str
    public: str


COMMAND = Words("--push", "--repo-id", "--public")
RECIPE = Words("push_to_hub", "hub_model_id", "hub_private_repo: false")


@dataclass(frozen=True)
class Push:
    """An upload that was asked for: where to, and as whom."""

    repo_id: str
    private: bool = True
    """Of a new repository; into one that is public already nothing is sent then."""
    token: str | None = field(default=None, repr=False)
    """By default the one of `hf auth login`, or HF_TOKEN."""
    words: Words = COMMAND


def ask(repo_id: str | None, private: bool = True, token: str | None = None, words: Words = COMMAND) -> Push:
    """A `Push` that may be tried.

    Raises:
        UserError: no name, one that the Hub does not allow, no token, or no network allowed.
    """
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    if repo_id is None:
        raise UserError(f"{words.push}: give {words.name} NAME/MODEL, the repository to upload to")
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UserError(f"{words.name}: {_line(error)}") from None
    if "/" not in repo_id:
        raise UserError(f"{words.name}: expected NAME/MODEL, found {repo_id!r}")
    if not (token or get_token()):
        raise UserError(f"{words.push}: there is no token for the Hub; run `hf auth login`, or set HF_TOKEN")
    if constants.HF_HUB_OFFLINE:
        raise UserError(f"{words.push}: HF_HUB_OFFLINE is set, so nothing can be uploaded")
    return Push(repo_id, private, token, words)


def upload(folder: Path, push: Push, console: Console) -> None:
    """Make the repository hold what `folder` holds, in one commit; one that exists keeps its other files, as a licence.

    Raises:
        UserError: the Hub refused, the repository is public where a private one was asked for, or the connection broke.
    """
    from httpx2 import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api, asked, repo_id = HfApi(token=push.token), push.words.push, push.repo_id
    try:
        _open_repo(api, push)
        commit = api.upload_folder(
            repo_id=repo_id, folder_path=folder, commit_message="rise publish", delete_patterns=MODEL_FILES
        )
    except UserError:
        raise
    except HfHubHTTPError as error:
        raise UserError(f"{asked}: {repo_id}: {_refusal(error)}") from error
    except ValueError as error:  # the card's header, or one large file
        raise UserError(f"{asked}: {repo_id}: the Hub refused: {_line(error)}") from error
    except (HTTPError, OSError, RuntimeError) as error:  # the threads that send by git-lfs raise RuntimeError
        raise UserError(
            f"{asked}: {repo_id}: the connection to {api.endpoint} failed ({_line(error.__cause__ or error)}); the "
            "folder is whole, and the same command goes on"
        ) from error
    console.print(f"uploaded: {commit.commit_url}", style="green", highlight=False, soft_wrap=True)


def _open_repo(api: Any, push: Push) -> None:
    """Create the repository, or make sure that the one of that name is a model, and as private as was asked for."""
    url, words = api.create_repo(push.repo_id, private=push.private, exist_ok=True), push.words
    if url.repo_type != "model":
        raise UserError(f"{words.name}: {push.repo_id} is a {url.repo_type} on the Hub already; choose another name")
    if push.private and not api.model_info(push.repo_id).private:
        raise UserError(f"{words.push}: {push.repo_id} exists and is public; {words.public} says that this is meant")


def _refusal(error: Any) -> str:
    """What the Hub's answer means."""
    status, said = error.response.status_code, error.server_message or _line(error)
    if status == 401:
        return f"the Hub does not accept this token ({said}); `hf auth login` stores another"
    if status == 403:
        return f"the token may not write there ({said})"
    return f"the Hub refused ({status}: {said})"


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
