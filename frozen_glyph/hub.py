"""Push a checkpoint folder to the Hub: one commit that holds what changed, or none when nothing did.

Command: ``frozen-glyph push runs/ru USER/ru``

Objects go up before the commit and stay on the server, so a push that was interrupted shows nothing, and the next one
sends only what is missing. ``upload_folder`` is not used because it may divide a push into several commits.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from frozen_glyph.checkpoint.contract import CARD_FILE, PLAN, PROVENANCE_FILE, WEIGHTS, is_ours
from frozen_glyph.checkpoint.describe import describe_checkpoint
from frozen_glyph.checkpoint.files import CheckpointError, inside, read_weight_map
from frozen_glyph.checkpoint.provenance import read_provenance
from frozen_glyph.errors import FrozenGlyphError


class HubError(FrozenGlyphError):
    """The Hub cannot be reached or refuses; nothing was pushed."""


def push(
    folder: str | Path, repo: str, private: bool = False, revision: str | None = None, token: str | None = None
) -> str:
    """Push the checkpoint in ``folder`` to ``repo`` (``user/name``) and return the commit's address.

    The repository is made if needed (``private`` or as the account's default says). Only files of the checkpoint are
    sent; older shards, indexes and code of this package that the folder no longer names are removed, whatever else
    lies in the repository stays. The card's usage names the repository. ``revision`` is a branch that exists.

    Raises:
        CheckpointError: ``folder`` is no checkpoint, or a file of it is missing, damaged or of another checkpoint.
        HubError: no token or a wrong one, no permission, no such branch, the repository is public and ``private`` was
            asked, somebody else pushed meanwhile, the network failed, or the Hub refuses a file.
    """
    folder = Path(folder)
    files = files_to_push(folder)
    card = (folder / CARD_FILE).read_text("utf-8")
    card = re.sub(r'from_pretrained\("[^"]*"', f'from_pretrained("{repo}"', card)
    contents: dict[str, str | bytes] = {name: str(folder / name) for name in files} | {CARD_FILE: card.encode()}
    message = f"Push {folder.resolve().name}"
    return commit_files(contents, repo, is_ours, message, private, revision, token)


def push_space(files: Mapping[str, bytes], repo: str, private: bool = False, token: str | None = None) -> str:
    """Make the Space ``repo`` hold ``files`` and return the commit's address; other code of this package is removed.

    Raises:
        HubError: as ``push``.
    """
    return commit_files(files, repo, is_space_code, "Push the page", private, None, token, "space")


def is_space_code(path: str) -> bool:
    """Whether a file of a Space is code of this package."""
    return path.startswith("frozen_glyph/")


def commit_files(
    contents: Mapping[str, str | bytes],
    repo: str,
    ours: Callable[[str], bool],
    message: str,
    private: bool,
    revision: str | None,
    token: str | None,
    kind: Literal["model", "space"] = "model",
) -> str:
    """One commit by which ``repo``, made if needed, holds ``contents`` and nothing else that is ``ours``; its address.

    ``contents``: bytes, or the path of a file. ``kind``: of repository.
    """
    check_target(repo, token)
    api = HfApi(token=token)
    before: Any
    with readable_errors(repo, revision):
        try:
            before = api.repo_info(repo, revision=revision, repo_type=kind)
        except RepositoryNotFoundError as error:
            if isinstance(error, GatedRepoError):
                raise
            sdk = "gradio" if kind == "space" else None
            api.create_repo(repo, private=private or None, repo_type=kind, space_sdk=sdk)
            before = api.repo_info(repo, revision=revision, repo_type=kind)
        if private and not before.private:
            raise HubError(f"{repo!r} exists and is public; make it private in its settings, or leave --private out")
        remote = {sibling.rfilename for sibling in before.siblings or []}
        done = api.create_commit(
            repo,
            [
                *(CommitOperationAdd(name, content) for name, content in contents.items()),
                *(CommitOperationDelete(name) for name in sorted(remote - set(contents)) if ours(name)),
            ],
            commit_message=message,
            revision=revision,
            parent_commit=before.sha,
            repo_type=kind,
        )
    return done.commit_url


def check_target(repo: str, token: str | None = None) -> None:
    """Raise ``HubError`` unless ``repo`` is a possible id and there is a token that the Hub accepts."""
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise HubError(f"{repo!r} is no repository id: {error}") from None
    if "/" not in repo:
        raise HubError(f"{repo!r} is no repository id; give user/name or organization/name")
    if not (token or get_token()):
        raise HubError("no token of the Hub; log in with `hf auth login`, or set HF_TOKEN to one that may write")
    with readable_errors(repo):
        HfApi(token=token).whoami()


def files_to_push(folder: Path) -> list[str]:
    """Names of the files that make the checkpoint in ``folder``; every one is there and as it was written.

    A run's work, TensorBoard files and temporary files stay at home.

    Raises:
        CheckpointError: ``folder`` is no checkpoint, or a file is missing, damaged or of another checkpoint.
    """
    problems = describe_checkpoint(folder, verify=True)["problems"]
    names = set()
    for entry in PLAN:
        found = present(folder, entry.glob) if entry.pushed in ("required", "optional") else set()
        if entry.pushed == "required" and not found:
            problems[entry.glob] = "is missing"
        names |= found
    if problems:
        what = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
        raise CheckpointError(f"{str(folder)!r} is not complete and was not pushed: {what}")
    indexes = [path.name for path in folder.glob("*.safetensors.index.json")]
    for index in indexes:
        names |= {index, *read_weight_map(inside(folder, index)).values()}
    if not indexes:
        names.add(WEIGHTS)
    provenance = read_provenance(folder) if (folder / PROVENANCE_FILE).exists() else {}
    for record in (provenance, *provenance.get("stages", [])):
        names |= set(record.get("files", {}))
    for name in names:
        inside(folder, name)
    return sorted(names)


def present(folder: Path, pattern: str) -> set[str]:
    """Names of the files of ``folder`` that ``pattern`` finds; hidden ones stay at home."""
    found = (path for path in folder.glob(pattern) if not path.is_dir() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix() for path in found}


@contextmanager
def readable_errors(repo: str, revision: str | None = None) -> Iterator[None]:
    """Turn what the Hub's client raises into a ``HubError`` of one line that says what to do."""
    try:
        yield
    except RevisionNotFoundError as error:
        raise HubError(
            f"{repo!r} has no branch {revision!r}; make it with `hf repos branch create {repo} {revision}`"
        ) from error
    except GatedRepoError as error:
        raise HubError(f"{repo!r} is gated; ask its owner for access") from error
    except HfHubHTTPError as error:
        raise HubError(refusal(repo, error)) from error
    except (
        HTTPError,
        OfflineModeIsEnabled,
        RuntimeError,
    ) as error:  # RuntimeError: an upload that failed several times
        cause = error.__cause__
        if isinstance(cause, HfHubHTTPError):
            raise HubError(f"{error} {refusal(repo, cause)}") from error
        what = f"{error} ({cause})" if cause else f"{error}"
        raise HubError(
            f"the connection to the Hub failed: {what}; push again, what has arrived is not sent again"
        ) from error
    except ValueError as error:
        if isinstance(error, FrozenGlyphError):
            raise
        raise HubError(f"the Hub refuses a file of {repo!r}: {error}") from error


def refusal(repo: str, error: HfHubHTTPError) -> str:
    """What an answer of the Hub means."""
    status, said = error.response.status_code, error.server_message or ""
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        return f"{repo!r} does not exist, or the token may not see it; check the id and the token's rights"
    meanings = {
        401: "the Hub does not accept the token; log in again with `hf auth login`, or mend HF_TOKEN",
        403: f"the token may not write to {repo!r}; use one with write access to it",
        409: f"{repo!r} was changed by somebody else at the same moment; look at it, then push again",
        412: f"somebody else pushed to {repo!r} meanwhile, and theirs was not touched; push again to replace it",
    }
    meaning = meanings.get(status, f"the Hub answered {status} for {repo!r}")
    return f"{meaning} (it says: {said})" if said else meaning
