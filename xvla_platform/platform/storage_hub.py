"""The Hugging Face Hub as storage: one repository an adaptation, one commit a push.

In: an adaptation's folder, or a repository at a revision. Out: the commit, or the repository's files in a
folder of the caller's. Everything is one `create_commit`, so that no reader ever sees half an adaptation.
"""

import shutil
from pathlib import Path
from typing import Any

from xvla_platform.errors import XvlaError
from xvla_platform.platform.artifact import MANIFEST_NAME, check_names
from xvla_platform.platform.hookspecs import PushReceipt, PushRequest
from xvla_platform.platform.hub_errors import hub_errors, no_token

HUB_OWN_FILES = (".gitattributes",)


def push(request: PushRequest) -> PushReceipt:
    """Commit the adaptation to `request.location`, by default `<you>/xvla-<name>`, private unless `public`."""
    from huggingface_hub import HfApi, get_token

    if not get_token():
        raise no_token("push")
    api = HfApi(library_name="xvla-platform")
    with hub_errors(request.location or "your account", None, "push"):
        repo = request.location or f"{api.whoami()['name']}/xvla-{request.name}"
    _check_id(repo)
    with hub_errors(repo, None, "push"):
        api.create_repo(repo, private=not request.public, exist_ok=True)
        info = api.model_info(repo)
        _check_visibility(repo, bool(info.private), request.public)
        remote = {file.rfilename for file in info.siblings or ()} - set(HUB_OWN_FILES)
        commit = api.create_commit(
            repo,
            operations=_operations(request.folder, remote),
            commit_message=f"{request.name} v{request.version}",
            parent_commit=info.sha,
        )
    return PushReceipt(location=repo, revision=commit.oid, already_there=commit.oid == info.sha)


def pull(location: str, revision: str | None, destination: Path) -> str | None:
    """Download the repository into `destination`; names are checked before any byte is fetched."""
    from huggingface_hub import HfApi, snapshot_download

    _check_id(location)
    with hub_errors(location, revision, "pull"):
        info = HfApi(library_name="xvla-platform").model_info(location, revision=revision)
        names = [file.rfilename for file in info.siblings or () if file.rfilename not in HUB_OWN_FILES]
        if MANIFEST_NAME not in names:
            raise XvlaError(
                "is not an adaptation of this platform: no manifest.json",
                file=location,
                hint="a base model is used with `xvla adapt --base`, it is not pulled",
            )
        check_names(names, location)
        snapshot_download(location, revision=info.sha, local_dir=destination, ignore_patterns=list(HUB_OWN_FILES))
    shutil.rmtree(destination / ".cache", ignore_errors=True)
    return info.sha


def _operations(folder: Path, remote: set[str]) -> list[Any]:
    """Add what the folder holds, delete what an earlier push left there."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    adds = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in names]
    return [*adds, *(CommitOperationDelete(path_in_repo=name) for name in sorted(remote - set(names)))]


def _check_id(repo: str) -> None:
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise XvlaError("is not a Hub id", found=repo, allowed="user/name, or dir:/some/share")


def _check_visibility(repo: str, private: bool, public: bool) -> None:
    """An existing repository keeps its visibility, so a push that assumes another one is stopped."""
    if private and public:
        raise XvlaError(
            f"{repo} exists and is private",
            hint="make it public on its page first, or push without --public",
        )
    if not private and not public:
        raise XvlaError(
            f"{repo} exists and is public; pushing there publishes the adaptation",
            hint="add --public if that is meant, or choose another target with --to",
        )
