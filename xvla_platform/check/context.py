"""Opening what checks look at, and keeping what they found: `check.json` and `report.html` in one folder."""

from collections.abc import Callable
from pathlib import Path

from xvla_platform.check.findings import CheckContext, CheckReport
from xvla_platform.data.reader import DatasetReader
from xvla_platform.data.samples import SPLIT_SEED, split_episodes
from xvla_platform.errors import XvlaError
from xvla_platform.measure.recording import MAX_EPISODES, load_recording
from xvla_platform.platform.bases import ResolvedBase
from xvla_platform.platform.files import write_json
from xvla_platform.specs.action_space import ActionSpace
from xvla_platform.specs.embodiment import EmbodimentSpec

CHECK_NAME = "check.json"
REPORT_FILES = {CHECK_NAME, "report.html"}


def make_context(
    spec: EmbodimentSpec,
    reader: DatasetReader,
    *,
    plugin_folder: Path | None = None,
    base: ResolvedBase | None = None,
    space: ActionSpace | None = None,
    against: Path | None = None,
    episodes: int = MAX_EPISODES,
    verified: bool = False,
    quick: bool = False,
    progress: Callable[[int], None] | None = None,
) -> CheckContext:
    """A context over a sample of `episodes` episodes, split as training would split them.

    `progress` is called with 1 for each episode read.
    """
    return CheckContext(
        spec=spec,
        reader=reader,
        recording=load_recording(reader, spec, max_episodes=episodes, progress=progress),
        base=base,
        space=space,
        split=split_of(len(reader.episodes), spec.dataset.held_out),
        plugin_folder=plugin_folder,
        against=against,
        verified=verified,
        quick=quick,
    )


def split_of(count: int, held_out: float) -> dict[str, tuple[int, ...]]:
    """`train`, `validation` and `test` to episode indices; nothing where there are too few episodes to split."""
    try:
        train, validation, test = split_episodes(count, held_out, SPLIT_SEED)
    except XvlaError:
        return {}
    return {"train": train, "validation": validation, "test": test}


def write_check(report: CheckReport, context: CheckContext, folder: Path) -> None:
    """Write `check.json`, and `report.html` with what it shows, into an existing folder."""
    from xvla_platform.check.report import write_report

    write_json(folder / CHECK_NAME, report.to_json())
    write_report(report, context, folder)
