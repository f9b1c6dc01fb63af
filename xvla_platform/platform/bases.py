"""Base models by name: shipped, a local folder, or a Hub repository.

In: a name and, for the Hub, a revision. Out: a `ResolvedBase`: the folder with its files, the exact identity
(commit and weight fingerprint) and what the platform must know before any weight is loaded. Nothing that
comes from the network is executed: only JSON, text and safetensors are fetched.
"""

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xvla_platform.errors import XvlaError
from xvla_platform.platform.base_config import positive, view_count
from xvla_platform.platform.domains import read_domains
from xvla_platform.platform.files import read_json, real_path, sha256_file, write_json
from xvla_platform.platform.hub_errors import hub_errors
from xvla_platform.specs.records import BaseRef

HUB_FILES = ["*.json", "*.txt", "*.safetensors"]
ALWAYS_HASHED_BYTES = 64 * 2**20  # below this, hashing costs less than trusting a time stamp is worth


@dataclass(frozen=True, kw_only=True)
class ResolvedBase:
    """A base model on this machine.

    Attributes:
        id: Shipped name, absolute folder, or Hub id.
        revision: Commit on the Hub.
        config: Its `config.json`, in the official or in LeRobot's form.
        fingerprint: sha256 over the names and hashes of its weight files.
        used_domains: Domain id to name of the rows that its pretraining used.
        num_domains: Rows of its per-domain tables.
        action_mode: Its action space.
        num_actions: Steps of one action chunk.
        num_views: Camera views it was trained with.
        rotation_layout: Layout of 6D rotations in its action vector.
    """

    id: str
    revision: str | None
    folder: Path
    config: dict[str, Any]
    fingerprint: str
    used_domains: dict[int, str]
    num_domains: int
    action_mode: str
    num_actions: int
    num_views: int
    rotation_layout: str

    @property
    def ref(self) -> BaseRef:
        return BaseRef(id=self.id, revision=self.revision, fingerprint=self.fingerprint)


def shipped_bases() -> dict[str, Path]:
    """Name to folder of the bases inside this package."""
    folder = Path(__file__).resolve().parents[1] / "bases"
    return {path.parent.name: path.parent for path in sorted(folder.glob("*/config.json"))}


def resolve_base(name: str, revision: str | None = None, root: Path | None = None) -> ResolvedBase:
    """Find, and for a Hub id fetch, the base `name`; a relative folder is looked for under `root` first."""
    shipped = shipped_bases()
    if name in shipped:
        if revision is not None:
            raise XvlaError("a revision belongs to a Hub id, not to a shipped base", field="--revision", found=revision)
        return _describe(name, None, shipped[name])
    path = Path(name).expanduser()
    real_path(path)
    if name and root is not None and (root / path).is_dir():
        path = root / path
    if name and path.is_dir():
        if revision is not None:
            raise XvlaError("a revision belongs to a Hub id, not to a folder", field="--revision", found=revision)
        return _describe(str(path.resolve()), None, path.resolve())
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise XvlaError(
            "unknown base model",
            field="base",
            found=name,
            allowed=f"a shipped base ({', '.join(shipped) or 'none'}), a folder, or a Hub id (user/name)",
        )
    folder = _fetch(name, revision)
    return _describe(name, folder.name, folder)


def fingerprint(folder: Path) -> str:
    """sha256 over the sorted (file name, sha256) of the folder's weight files."""
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise XvlaError("no weights (*.safetensors) in this base", file=folder)
    lines = [f"{path.name} {_weight_hash(path)}\n" for path in weights]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _fetch(repo: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    with hub_errors(repo, revision, "fetch the base"):
        return Path(snapshot_download(repo, revision=revision, allow_patterns=HUB_FILES))


def _describe(name: str, revision: str | None, folder: Path) -> ResolvedBase:
    path = folder / "config.json"
    config = read_json(path)
    if not isinstance(config, dict):
        raise XvlaError("is not the configuration of an X-VLA model", file=path)
    kind = config.get("model_type", config.get("type"))
    if kind != "xvla":
        raise XvlaError("is not an X-VLA model", file=path, field="model_type", found=kind, allowed="xvla")
    num_domains = positive(config, ("num_domains",), 30, path)
    return ResolvedBase(
        id=name,
        revision=revision,
        folder=folder,
        config=config,
        fingerprint=fingerprint(folder),
        used_domains={key: domain.name for key, domain in read_domains(folder, name, num_domains).domains.items()},
        num_domains=num_domains,
        action_mode=str(config.get("action_mode") or "ee6d").lower(),
        num_actions=positive(config, ("num_actions", "chunk_size"), 30, path),
        num_views=view_count(config, folder, path),
        rotation_layout=str(config.get("rotation_layout") or "rot6d_interleaved"),
    )


def _weight_hash(path: Path) -> str:
    """sha256 of a weight file; large ones are remembered by place, size and time stamp."""
    real = path.resolve()
    stat = real.stat()
    if stat.st_size < ALWAYS_HASHED_BYTES:
        return sha256_file(real)
    cache = _cache_folder() / "weight_hashes.json"
    try:
        known = json.loads(cache.read_text())
    except (OSError, ValueError):
        known = {}
    stamp = [stat.st_size, stat.st_mtime_ns]
    entry = known.get(str(real)) if isinstance(known, dict) else None
    if isinstance(entry, list) and entry[:2] == stamp:
        return str(entry[2])
    known[str(real)] = [*stamp, sha256_file(real)]
    # The cache saves seconds; a home that cannot be written must not stop anyone.
    with contextlib.suppress(XvlaError, OSError):
        write_json(cache, known)
    return str(known[str(real)][2])


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xvla"
