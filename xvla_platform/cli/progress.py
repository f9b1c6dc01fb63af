"""Progress bars of long commands: decoding, encoding, and the training loop with loss, rate and ETA.

With `--json` nothing is drawn; on a pipe a line is printed now and then instead of a bar.
"""

import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from xvla_platform.cli.output import json_wanted, say
from xvla_platform.specs.plan import Stage

LINE_EVERY_S = 20.0


class Bars:
    """A context that draws bars; `task` makes one for a counted job, and the loop's observer methods another."""

    def __init__(self, *, enabled: bool = True) -> None:
        self._quiet = json_wanted() or not enabled
        self._live = sys.stdout.isatty() and not self._quiet
        self._progress = Progress(
            TextColumn("{task.description:<18}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(),
            disable=not self._live,
        )
        self._stage: TaskID | None = None
        self._started = 0.0
        self._first = 0
        self._printed = 0.0
        self._loss: float | None = None
        self._error: float | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def task(self, label: str, total: int) -> Callable[..., None]:
        """A bar of `total` units; call the result with how many were done, and with what to show beside the bar."""
        if self._live:
            task = self._progress.add_task(label, total=total, detail="")
            return lambda count, detail="": self._progress.update(task, advance=count, detail=detail)
        if not self._quiet:
            say(f"{label} ({total})")
        return _Lines(label, total, quiet=self._quiet)

    def stage_started(self, stage: Stage, index: int, start: int, trained: Mapping[str, int]) -> None:
        """Announce a stage and what it trains."""
        groups = ", ".join(f"{group} {count:,}" for group, count in trained.items())
        if not self._quiet:
            self._progress.console.print(f"stage     {stage.name}: {stage.steps} steps of {stage.batch_size}; {groups}")
            if start:
                self._progress.console.print(f"          continued at step {start}")
        self._stage = self._progress.add_task(stage.name, total=stage.steps, completed=start, detail="")
        self._started, self._first, self._printed = time.monotonic(), start, time.monotonic()
        self._loss = self._error = None

    def step_finished(self, stage: Stage, step: int, metrics: Mapping[str, float]) -> None:
        """Show the smoothed loss, the validation error and the rate."""
        loss = metrics["loss"]
        self._loss = loss if self._loss is None else 0.95 * self._loss + 0.05 * loss
        self._error = metrics.get("validation_error", self._error)
        rate = (step - self._first) / max(1e-9, time.monotonic() - self._started)
        detail = f"loss {self._loss:.3f}"
        if self._error is not None:
            detail += f"  val {self._error:.3f}"
        detail += f"  {rate:.1f} it/s"
        if self._stage is not None and self._live:
            self._progress.update(self._stage, completed=step, detail=detail)
        elif not self._quiet and (time.monotonic() - self._printed > LINE_EVERY_S or step == stage.steps):
            self._printed = time.monotonic()
            left = (stage.steps - step) / max(rate, 1e-9)
            say(f"{stage.name} {step}/{stage.steps}  {detail}  {left:.0f} s left")


class _Lines:
    """A counted job on a pipe: a line now and then, where there is something to say beside the count."""

    def __init__(self, label: str, total: int, *, quiet: bool) -> None:
        self._label, self._total, self._quiet = label, total, quiet
        self._done, self._printed = 0, time.monotonic()

    def __call__(self, count: int, detail: str = "") -> None:
        self._done += count
        due = time.monotonic() - self._printed > LINE_EVERY_S or self._done == self._total
        if detail and due and not self._quiet:
            self._printed = time.monotonic()
            say(f"{self._label} {self._done}/{self._total}  {detail}")
