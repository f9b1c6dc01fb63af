"""The promises of a storage, held by sharing a small adaptation and bringing it back.

In: the storage that a plugin registers, and a location where it may write. Out: nothing, or a `NotConformantError`.
"""

import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from xvla_platform.platform.artifact import seal, verify
from xvla_platform.platform.card import model_card
from xvla_platform.platform.files import write_json, write_text
from xvla_platform.platform.hookspecs import PushReceipt, PushRequest, Storage, load_target
from xvla_platform.platform.records import RECORD_NAME, record_text
from xvla_platform.specs.records import EmbodimentRecord, Manifest
from xvla_platform.testing.conformance import contents, promised, require, require_refusal

NAME = "kit_arm"


def assert_storage_conformant(storage: Storage, location: str) -> None:
    """Push, push again, push another of the same number, pull each back, and ask for what does not exist.

    Args:
        location: What a user writes after `--to` (and the scheme); nothing of the kit's robot may lie there yet.
    """
    push, pull = load_target(storage.push), load_target(storage.pull)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        first, second = _adaptation(root / "one" / "v1", 1.0), _adaptation(root / "two" / "v1", 2.0)
        before = contents(first)

        def send(folder: Path) -> PushReceipt:
            request = PushRequest(name=NAME, version=1, folder=folder, location=location, public=False)
            receipt = push(request)
            require("KIT301", isinstance(receipt, PushReceipt), f"{receipt!r}")
            return receipt

        def bring(receipt: PushReceipt, to: Path, revision: str | None) -> None:
            to.mkdir()
            location = _location(storage, receipt)
            named = revision is not None and location.rstrip("/").endswith(f"/{revision}")
            pull(location, None if named else revision, to)  # a location may name its revision itself

        with promised("KIT301"):
            receipt = send(first)
            told = isinstance(receipt.location, str) and bool(receipt.location)
            require("KIT301", told and not receipt.already_there, f"{receipt}")
        require("KIT306", contents(first) == before, f"{sorted(contents(first))}")
        with promised("KIT302"):
            bring(receipt, root / "back", receipt.revision)
            require("KIT302", contents(root / "back") == before, f"{sorted(contents(root / 'back'))}")
            verify(root / "back")
            bring(receipt, root / "newest", None)
            require("KIT302", contents(root / "newest") == before, "other files without a revision")
        with promised("KIT303"):
            again = send(first)
            require("KIT303", again.already_there, f"{again}")
            require("KIT303", again.revision == receipt.revision, f"{again.revision}, first {receipt.revision}")
        with promised("KIT304"):
            other = send(second)
            require("KIT304", not other.already_there, f"{other}")
            bring(other, root / "other", other.revision)
            require("KIT304", contents(root / "other") == contents(second), "the second is not what was pushed")
            bring(receipt, root / "first", receipt.revision)
            require("KIT304", contents(root / "first") == before, "the first is no longer what was pushed")
        nowhere = root / "nowhere"
        nowhere.mkdir()
        place = f"{_location(storage, receipt)}-that-does-not-exist"
        require_refusal("KIT305", "a place that does not exist", lambda: pull(place, None, nowhere))
        wrong = "v999" if (receipt.revision or "").startswith("v") else "0" * 40
        require_refusal(
            "KIT305", "a revision that does not exist", lambda: pull(_location(storage, receipt), wrong, nowhere)
        )
        require("KIT305", not contents(nowhere), f"wrote {sorted(contents(nowhere))}")


def _location(storage: Storage, receipt: PushReceipt) -> str:
    """What `xvla pull` hands to the storage: the receipt's location without its scheme."""
    return receipt.location.removeprefix(f"{storage.name}:").partition("@")[0]


def _adaptation(folder: Path, value: float) -> Path:
    """A small, sealed adaptation; `value` tells two apart."""
    folder.mkdir(parents=True)
    field = {"name": "joints", "kind": "joint", "size": 6, "unit": "rad"}
    record = EmbodimentRecord.model_validate(
        {
            "spec": {
                "name": NAME,
                "description": "The conformance kit's own arm.",
                "control_hz": 10,
                "horizon_s": 1.0,
                "cameras": [
                    {"name": "front", "role": "main", "mount": "fixed", "resolution": [64, 64], "key": "front"}
                ],
                "proprio": {"key": "state", "fields": [field]},
                "action": {"key": "action", "fields": [{**field, "reference": "absolute"}]},
                "dataset": {"path": "demonstrations"},
            },
            "plugin": f"plugins/{NAME}",
            "plugin_sha256": "0" * 64,
            "base": {"id": "xvla-tiny", "fingerprint": "f" * 64},
            "slot": {"domain_id": 3, "num_domains": 8},
            "action_space": "joint",
            "rotation_layout": "rot6d_interleaved",
            "data": {
                "format": "lerobot",
                "path": "demonstrations",
                "fingerprint": "d" * 64,
                "episodes": 1,
                "frames": 10,
                "fps": 10.0,
            },
        }
    )
    manifest = Manifest(
        embodiment=NAME,
        version=1,
        created="2026-01-01T00:00:00Z",
        tuning="prompt",
        base=record.base,
        slot=record.slot,
        data=record.data,
        seed=0,
        versions={},
        files={},
    )
    metrics = {
        "table": [{"policy": "adapted", "errors": {"joints": value}}],
        "units": {"joints": "rad"},
        "test_episodes": 1,
        "test_frames": 10,
    }
    save_file({"rows": np.full((2, 16), value, dtype=np.float32)}, str(folder / "adapter_model.safetensors"))
    write_json(folder / "metrics.json", metrics)
    write_text(folder / RECORD_NAME, record_text(record))
    write_text(folder / "README.md", model_card(manifest, record, metrics))
    seal(folder, manifest)
    return folder
