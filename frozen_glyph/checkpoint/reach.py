"""One question to the Hub, asked once, before its library fetches: that would try for half a minute to reach it.

A word that is no folder is taken for a repository, and is most often the name of a folder with a mistake in it.
"""

import re
from pathlib import Path

from frozen_glyph.checkpoint.contract import CONFIG_FILE
from frozen_glyph.checkpoint.files import CheckpointError

HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
answered: set[str] = set()  # repositories of which the Hub has told this process


def is_reached(what: str, repo: str) -> bool:
    """Whether the Hub tells of ``repo``; False: it cannot be reached, but something of ``repo`` is in the cache.

    ``what`` the repository would be, such as ``parent``, is for the error.

    Raises:
        CheckpointError: no Hub id; no such repository, or none that may be read; no Hub, and nothing in the cache.
    """
    if repo in answered:
        return True
    if not HUB_ID.fullmatch(repo):
        raise unreached(what, repo, "it is no Hub id either")
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    try:
        get_hf_file_metadata(hf_hub_url(repo, CONFIG_FILE))
    except RepositoryNotFoundError as error:  # or one that is gated
        raise unreached(what, repo, " ".join(str(error).split())) from error
    except HfHubHTTPError:
        pass  # it answers, if only that there is no such file; whoever asks for another gets its own answer
    except ValueError as error:
        raise unreached(what, repo, " ".join(str(error).split())) from error
    except Exception as error:  # of the Hub library's HTTP client, which is not the same in all its versions
        if (Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}" / "snapshots").is_dir():
            return False
        offline = "HF_HUB_OFFLINE is set" if isinstance(error, OfflineModeIsEnabled) else f"no answer ({error})"
        raise unreached(what, repo, f"{offline}, and nothing of it is in the cache") from error
    answered.add(repo)
    return True


def unreached(what: str, repo: str, why: str) -> CheckpointError:
    return CheckpointError(
        f"{what} {repo!r} is no folder and cannot be fetched from the Hub: {why}; "
        "name a checkpoint folder or a repository that you can read"
    )
