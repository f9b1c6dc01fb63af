"""The proof of `xvla check`: clean recordings give no error, and a planted mistake is called by its name.

    python -m xvla_platform.testing.planted --plugin plugins/my_arm --seeds 2 --json report.json

In: plugins whose recordings are known to be right, and the mistakes to plant. Out: for each mistake and strength
whether a finding (an error or a warning) named it, what was reported besides, and the share that was named.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xvla_platform.check.context import make_context
from xvla_platform.check.findings import CheckGroup, CheckReport
from xvla_platform.check.runner import check_groups, run_checks
from xvla_platform.data.reader import DatasetReader, Images
from xvla_platform.errors import XvlaError
from xvla_platform.platform.bases import ResolvedBase, resolve_base
from xvla_platform.platform.embodiments import base_space, open_data
from xvla_platform.platform.plugins import load_plugin
from xvla_platform.specs.embodiment import EmbodimentSpec
from xvla_platform.testing.faults import FAULTS, CannotBePlantedError, Fault, cameras
from xvla_platform.testing.faults.views import RowsView, View

WANTED = 0.95
DEFAULT_BASE = "xvla-tiny"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One mistake, planted once.

    Attributes:
        named: A finding of severity error or warning has one of the mistake's codes.
        found: Code of each such finding, with its field.
        errors: Error-level findings that neither name the mistake nor come with it.
        seconds: What the check took.
    """

    plugin: str
    fault: str
    strength: str
    seed: int
    named: bool
    found: tuple[str, ...]
    errors: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What came of all cases.

    Attributes:
        clean: Plugin to the error-level findings on its clean recording; all empty if the checks are right.
        cases: Every mistake that could be planted.
        skipped: `plugin, fault, strength` that this robot cannot have.
    """

    clean: dict[str, tuple[str, ...]]
    cases: tuple[Case, ...]
    skipped: tuple[str, ...]

    @property
    def share(self) -> float:
        """Share of the cases that were named."""
        return sum(case.named for case in self.cases) / len(self.cases) if self.cases else 0.0

    @property
    def passed(self) -> bool:
        """At least 95 % named, and no error on a clean recording."""
        return self.share >= WANTED and not any(self.clean.values())


class Kept(View):
    """A reader that keeps decoded frames and numbers in memory, up to a budget, for many checks of one dataset."""

    def __init__(self, source: DatasetReader, megabytes: int = 1500) -> None:
        super().__init__(source)
        self._room = megabytes * 2**20
        self._frames: dict[tuple[int, str, int], Images] = {}
        self._columns: dict[tuple[int, str], Any] = {}
        self._print: str | None = None

    def columns(self, episode: int, keys: Sequence[str]) -> dict[str, Any]:
        """Each key's numbers, float64 [L, D]."""
        lacking = [key for key in keys if (episode, key) not in self._columns]
        for key, values in self.source.columns(episode, lacking).items() if lacking else ():
            self._columns[episode, key] = values
        return {key: self._columns[episode, key].copy() for key in keys}

    def frames(self, episode: int, key: str, indices: Sequence[int] | NDArray[Any]) -> Images:
        """The frames asked for, in that order, RGB uint8 [N, H, W, 3]."""
        wanted = [int(index) for index in np.asarray(indices, dtype=np.int64).reshape(-1)]
        lacking = sorted({index for index in wanted if (episode, key, index) not in self._frames})
        if not wanted or (lacking and self._room <= 0):
            return self.source.frames(episode, key, wanted)
        for index, image in zip(lacking, self.source.frames(episode, key, lacking) if lacking else (), strict=True):
            self._frames[episode, key, index] = image.copy()
            self._room -= image.nbytes
        return np.stack([self._frames[episode, key, index] for index in wanted])

    def fingerprint(self) -> str:
        """That of the source, computed once."""
        self._print = self._print or self.source.fingerprint()
        return self._print


def prove(
    plugins: Iterable[Path],
    *,
    faults: Sequence[Fault] = FAULTS,
    seeds: Sequence[int] = (0,),
    strengths: int | None = None,
    episodes: int | None = None,
    base: str | None = DEFAULT_BASE,
    whole: bool = False,
    say: Any = None,
) -> Proof:
    """Plant each mistake in each recording and check what is found.

    Args:
        strengths: Plant only so many strengths of each fault, its first ones.
        episodes: Look at no more than the first so many episodes of a recording.
        base: Name or folder of the base to be adapted; None checks without one.
        whole: Run every check on every case. Otherwise pictures are looked at only where they changed, and nothing
            else is then; the clean recordings meet every check in any case.
        say: Called with one line for each case.
    """
    resolved = resolve_base(base) if base else None
    groups = check_groups()
    clean: dict[str, tuple[str, ...]] = {}
    cases: list[Case] = []
    skipped: list[str] = []
    for folder in plugins:
        plugin = load_plugin(folder)
        reader: DatasetReader = Kept(_first(open_data(plugin.spec, plugin.folder), episodes))
        name = plugin.spec.name
        report = check(reader, plugin.spec, groups, resolved, plugin.folder)
        clean[name] = tuple(_labels(report, ("error",)))
        if say:
            say(f"{name}: clean: {', '.join(clean[name]) or 'no error'}")
        for fault in faults:
            for strength in list(fault.strengths)[:strengths]:
                for seed in seeds:
                    label = f"{name}, {fault.name}, {strength}"
                    try:
                        planted = fault.plant(reader, plugin.spec, strength, seed)
                    except CannotBePlantedError:
                        skipped.append(label)
                        break
                    looked = groups if whole else _concerned(fault, groups)
                    case = _case(fault, strength, seed, *planted, looked, resolved, plugin.folder)
                    cases.append(case)
                    if say:
                        say(f"{'named ' if case.named else 'MISSED'} {label}, seed {seed}: {', '.join(case.found)}")
    return Proof(clean=clean, cases=tuple(cases), skipped=tuple(skipped))


def check(
    reader: DatasetReader,
    spec: EmbodimentSpec,
    groups: Iterable[CheckGroup],
    base: ResolvedBase | None,
    folder: Path | None,
) -> CheckReport:
    """Every check over a dataset and a declaration, as `xvla check` runs them."""
    space = base_space(base) if base else None
    context = make_context(spec, reader, plugin_folder=folder, base=base, space=space)
    return run_checks(context, groups=groups)


def table(proof: Proof) -> list[str]:
    """The proof as lines: each strength of each fault over all plugins and seeds, then the totals."""
    lines = [f"{'fault':<28} {'strength':<44} {'named':>9}  other errors"]
    seen: dict[tuple[str, str], list[Case]] = {}
    for case in proof.cases:
        seen.setdefault((case.fault, case.strength), []).append(case)
    for (fault, strength), group in seen.items():
        others = sorted({label.split()[0] for case in group for label in case.errors})
        named = f"{sum(case.named for case in group)} of {len(group)}"
        lines.append(f"{fault:<28} {strength:<44} {named:>9}  {', '.join(others)}")
    lines += ["", *(f"clean {name}: {', '.join(found) or 'no error'}" for name, found in proof.clean.items())]
    kinds = len({case.fault for case in proof.cases})
    total, named_ = len(proof.cases), sum(case.named for case in proof.cases)
    alone = sum(not case.errors for case in proof.cases)
    lines.append(f"{kinds} kinds in {len(seen)} strengths, {total} cases: {named_} named, {proof.share:.1%}")
    lines.append(f"without any other error: {alone}, {alone / max(1, total):.1%}")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 if the checks hold, 1 if not, 2 if it cannot be run."""
    parser = argparse.ArgumentParser(prog="python -m xvla_platform.testing.planted", description=__doc__)
    parser.add_argument("--plugin", type=Path, nargs="+", action="extend", required=True, help="folders of plugins")
    parser.add_argument(
        "--fault", nargs="+", choices=[fault.name for fault in FAULTS], metavar="FAULT", help="only these faults"
    )
    parser.add_argument("--seeds", type=int, default=1, help="random placements of each")
    parser.add_argument("--strengths", type=int, help="only the first so many strengths of each fault")
    parser.add_argument("--episodes", type=int, help="only the first so many episodes of each recording")
    parser.add_argument("--base", default=DEFAULT_BASE, help="the base to be adapted; 'none' checks without one")
    parser.add_argument("--whole", action="store_true", help="every check on every case, which takes far longer")
    parser.add_argument("--json", type=Path, help="write every case here")
    parser.add_argument("--verbose", action="store_true", help="a line for each case")
    options = parser.parse_args(arguments)
    out, start = sys.stdout, time.monotonic()

    def say(line: str) -> None:
        out.write(line + "\n")
        out.flush()

    try:
        proof = prove(
            options.plugin,
            faults=[fault for fault in FAULTS if not options.fault or fault.name in options.fault],
            seeds=range(options.seeds),
            strengths=options.strengths,
            episodes=options.episodes,
            base=None if options.base == "none" else options.base,
            whole=options.whole,
            say=say if options.verbose else None,
        )
    except XvlaError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    for line in table(proof):
        say(line)
    say(f"{time.monotonic() - start:.0f} s")
    if options.json:
        options.json.write_text(json.dumps({**asdict(proof), "share": proof.share}, indent=1))
    return 0 if proof.passed else 1


def _case(
    fault: Fault,
    strength: str,
    seed: int,
    reader: DatasetReader,
    spec: EmbodimentSpec,
    groups: Iterable[CheckGroup],
    base: ResolvedBase | None,
    folder: Path,
) -> Case:
    start = time.monotonic()
    report = check(reader, spec, groups, base, folder)
    right = {*fault.codes, *fault.also}
    return Case(
        plugin=spec.name,
        fault=fault.name,
        strength=strength,
        seed=seed,
        named=any(f.code in fault.codes and f.severity in ("error", "warning") for f in report.findings),
        found=tuple(_labels(report, ("error", "warning"))),
        errors=tuple(label for label in _labels(report, ("error",)) if label.split()[0] not in right),
        seconds=round(time.monotonic() - start, 3),
    )


def _concerned(fault: Fault, groups: Sequence[CheckGroup]) -> list[CheckGroup]:
    """The checks that can name a mistake: those of pictures where pictures changed, else all others."""
    pictures = fault in cameras.FAULTS
    return [group for group in groups if group.name == "structure" or (group.name == "cameras") == pictures]


def _labels(report: CheckReport, severities: tuple[str, ...]) -> list[str]:
    return [f"{f.code} {f.field or ''}".strip() for f in report.findings if f.severity in severities]


def _first(reader: DatasetReader, count: int | None) -> DatasetReader:
    if count is None or count >= len(reader.episodes):
        return reader
    return RowsView(reader, [(e.index, np.arange(e.length)) for e in reader.episodes[:count]], renumbered=False)


if __name__ == "__main__":
    sys.exit(main())
