"""What a recording is found to be does not depend on the format it is kept in."""

from pathlib import Path

import numpy as np
import pytest
from formats import FORMATS, Format

from xvla_platform.check.context import make_context
from xvla_platform.check.runner import run_checks
from xvla_platform.data.plugin import register_dataset_readers
from xvla_platform.measure import timing

READERS = {factory.name: factory for factory in register_dataset_readers()}


def findings(format: Format, place: Path) -> set[tuple[str, str | None, str]]:
    reader = READERS[format.reader].open(format.write(place))
    report = run_checks(make_context(format.spec(), reader, quick=True))
    return {(finding.code, finding.field, finding.severity) for finding in report.findings}


@pytest.mark.parametrize("format", FORMATS[1:], ids=[format.name for format in FORMATS[1:]])
def test_the_same_recording_gets_the_same_findings(format: Format, tmp_path: Path) -> None:
    expected = findings(FORMATS[0], tmp_path / "first")
    assert findings(format, tmp_path / "second") == expected
    assert "error" not in {severity for _, _, severity in expected}


def test_times_that_were_not_recorded_are_neither_even_nor_repeated() -> None:
    unknown = timing.clock(np.full(30, np.nan), 0.05)
    assert (unknown.gaps, unknown.repeats, unknown.period_s) == ((), (), 0.0)
    times = np.arange(30) / 20.0
    times[10] = np.nan
    times[21:] -= 0.05  # frame 21 is stamped like frame 20
    assert timing.clock(times, 0.05).repeats == (21,)
