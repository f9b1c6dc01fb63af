"""What can go wrong between this machine and the Hub, each in one line with what to do."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from xvla_platform.errors import XvlaError
from xvla_platform.platform.files import os_errors


@contextlib.contextmanager
def hub_errors(repo: str, revision: str | None, action: str) -> Iterator[None]:
    """Turn the client's errors into an `XvlaError`; `action` completes "could not ..."."""
    import httpx2
    from huggingface_hub import errors

    where = f"{repo}@{revision}" if revision else repo
    try:
        yield
    except errors.LocalTokenNotFoundError:
        raise no_token(action) from None
    except errors.GatedRepoError:
        raise XvlaError(
            f"could not {action}: access to {repo} is gated",
            hint=f"ask for access on the page of {repo}, then `hf auth login`",
        ) from None
    except errors.RevisionNotFoundError:
        raise XvlaError(
            f"could not {action}: {repo} has no such revision",
            field="revision",
            found=revision,
            hint="name a commit, tag or branch that its page lists",
        ) from None
    except errors.RepositoryNotFoundError:
        raise XvlaError(
            f"could not {action}: {repo} does not exist, or is private and not yours to see",
            hint="check the name; for a private one, `hf auth login`",
        ) from None
    except errors.HFValidationError:
        raise XvlaError("is not a Hub id", found=repo, allowed="user/name") from None
    except errors.LocalEntryNotFoundError:
        raise _unreachable(action, where) from None
    except errors.HfHubHTTPError as error:
        raise _refused(error, action, repo) from None
    except (httpx2.TransportError, errors.OfflineModeIsEnabled, ConnectionError, TimeoutError):
        raise _unreachable(action, where) from None
    except OSError as error:
        try:
            with os_errors(Path(error.filename or where)):
                raise
        except OSError:
            raise XvlaError(f"could not {action}: {error}", file=where) from None
    except RuntimeError as error:  # what the uploading threads raise in place of what stopped them
        raise XvlaError(f"could not {action}: {error}", file=where, hint="repeat; nothing was lost") from None


def no_token(action: str) -> XvlaError:
    """The error of a machine without a Hub token."""
    return XvlaError(
        f"could not {action}: no Hub token on this machine",
        hint="`hf auth login` or set HF_TOKEN; without an account, `xvla push --to dir:/some/share`",
    )


def _unreachable(action: str, where: str) -> XvlaError:
    return XvlaError(
        f"could not {action}: the Hub cannot be reached for {where}",
        hint="check the network and repeat; nothing was lost",
    )


def _refused(error: Exception, action: str, repo: str) -> XvlaError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return XvlaError(
            f"could not {action}: the Hub refused the token for {repo} (HTTP {status})",
            hint="`hf auth login` with a token that may write there",
        )
    return XvlaError(f"could not {action}: the Hub answered HTTP {status} for {repo}", hint="repeat later")
