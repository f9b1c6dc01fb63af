"""Opening what an adaptation stands on, and refusing what is no longer what was registered.

In: an embodiment record. Out: its base and its dataset, with the same content as at registration.
"""

from pathlib import Path

from xvla_platform.data.reader import DatasetReader
from xvla_platform.errors import XvlaError
from xvla_platform.platform.bases import ResolvedBase, resolve_base
from xvla_platform.platform.embodiments import open_data
from xvla_platform.platform.files import read_mapping, real_path
from xvla_platform.platform.records import load_embodiment, plugin_folder
from xvla_platform.platform.workspace import Workspace
from xvla_platform.specs.records import EmbodimentRecord


def open_base(record: EmbodimentRecord, workspace: Workspace | None = None) -> ResolvedBase:
    """The base the embodiment's slot was allocated on; other weights under its name are an error."""
    base = resolve_base(record.base.id, record.base.revision, (workspace or Workspace.find()).root)
    if base.fingerprint != record.base.fingerprint:
        raise XvlaError(
            "the base's weights changed since the embodiment was registered",
            file=base.folder,
            field="base.fingerprint",
            found=base.fingerprint[:12],
            allowed=record.base.fingerprint[:12],
            hint=f"run `xvla add-embodiment {record.plugin}` again",
        )
    return base


def open_demonstrations(workspace: Workspace, record: EmbodimentRecord, data: Path | None = None) -> DatasetReader:
    """The dataset behind a record, or the one at `data`; other content is an error."""
    spec, folder = record.spec, plugin_folder(workspace, record)
    if data is not None:
        place = str(real_path(data, "--data"))
        absolute = spec.dataset.model_copy(update={"path": place, "repo": None, "revision": None})
        spec = spec.model_copy(update={"dataset": absolute})
    reader = open_data(spec, folder)
    if reader.fingerprint() != record.data.fingerprint:
        raise XvlaError(
            "the dataset is not the one the embodiment was registered with",
            file=reader.root,
            field="data.fingerprint",
            found=reader.fingerprint()[:12],
            allowed=record.data.fingerprint[:12],
            hint=f"run `xvla add-embodiment {record.plugin}` again, or give the dataset with --data",
        )
    return reader


def statistics_of(workspace: Workspace, name: str) -> dict[str, object]:
    """`stats.json` of a registered embodiment."""
    load_embodiment(workspace, name)
    return dict(read_mapping(workspace.embodiments / name / "stats.json"))
