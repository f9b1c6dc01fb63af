"""Pictures of an adaptation: predicted against recorded trajectories, and the training curves."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xvla_platform.data.binding import Binding

PREDICTED, RECORDED, MUTED = "#d1495b", "#30638e", "#9aa5b1"


def plot_trajectories(
    path: Path,
    binding: Binding,
    *,
    target: NDArray[Any],
    predicted: NDArray[Any],
    unadapted: NDArray[Any] | None,
    images: Sequence[NDArray[np.uint8]],
    title: str,
    horizon_s: float,
) -> None:
    """One row of panels a frame: what the main camera saw, then each action field over the chunk.

    Args:
        target, predicted, unadapted: Chunks [n, T, dim] of n chosen held-out frames.
        images: Main view of each frame, uint8 [H, W, 3].
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    fields = binding.action_fields
    times = np.arange(1, target.shape[1] + 1) * horizon_s / target.shape[1]
    rows, columns = len(target), 1 + len(fields)
    figure, axes = plt.subplots(rows, columns, figsize=(3.2 * columns, 2.3 * rows), squeeze=False)
    decoded = {
        "recorded": (binding.quantities(target), RECORDED, "-"),
        "adapted": (binding.quantities(predicted), PREDICTED, "--"),
    }
    if unadapted is not None:
        decoded["unadapted base"] = (binding.quantities(unadapted), MUTED, ":")
    for row in range(rows):
        axes[row, 0].imshow(images[row])
        axes[row, 0].set_axis_off()
        for column, field in enumerate(fields, start=1):
            axis = axes[row, column]
            for values, colour, style in decoded.values():
                axis.plot(times, values[field.name][row], color=colour, linestyle=style, linewidth=1.6)
            if row == 0:
                axis.set_title(f"{field.name} [{field.unit or field.format}]", fontsize=10)
            axis.tick_params(labelsize=8)
            if row == rows - 1:
                axis.set_xlabel("seconds ahead", fontsize=9)
    handles = [plt.Line2D([], [], color=colour, ls=style, label=name) for name, (_, colour, style) in decoded.items()]
    figure.legend(handles=handles, loc="upper right", fontsize=9, frameon=False, ncols=3)
    figure.suptitle(title, x=0.02, ha="left", fontsize=12)
    figure.tight_layout(rect=(0, 0, 1, 0.96))
    _save(figure, path)


def plot_curves(path: Path, lines: Sequence[Mapping[str, Any]], title: str) -> None:
    """Training loss and validation error over all stages, from the lines of `metrics.jsonl`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (loss_axis, error_axis) = plt.subplots(1, 2, figsize=(10, 3.4))
    offset = 0
    for stage in dict.fromkeys(str(line["stage"]) for line in lines):
        own = [line for line in lines if line["stage"] == stage]
        steps = np.array([line["step"] for line in own]) + offset
        losses = np.array([line["loss"] for line in own])
        loss_axis.plot(steps, losses, alpha=0.25, color=RECORDED)
        window = max(1, len(losses) // 40)
        smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
        loss_axis.plot(steps[window - 1 :], smooth, label=stage)
        checked = [line for line in own if "validation_error" in line]
        error_axis.plot(
            [line["step"] + offset for line in checked],
            [line["validation_error"] for line in checked],
            marker="o",
            markersize=3,
            label=stage,
        )
        offset += int(own[-1]["step"])
    loss_axis.set(yscale="log", xlabel="step", title="training loss")
    error_axis.set(xlabel="step", title="validation error (1 = always the mean action)")
    for axis in (loss_axis, error_axis):
        axis.legend(fontsize=8, frameon=False)
        axis.grid(alpha=0.3)
    figure.suptitle(title, x=0.02, ha="left", fontsize=12)
    figure.tight_layout()
    _save(figure, path)


def plot_samplers(path: Path, points: Mapping[str, tuple[float, float]], *, title: str) -> None:
    """Samplers by name as points: milliseconds a chunk, and deviation from the exact chunk in % of action std."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4.2))
    floor = 1e-4  # where equal chunks stand on the logarithmic axis
    for name, (ms, percent) in points.items():
        axis.plot(ms, max(percent, floor), "o", color=RECORDED if percent < 2 else PREDICTED)
        axis.annotate(name, (ms, max(percent, floor)), xytext=(6, 4), textcoords="offset points", fontsize=9)
    axis.axhline(2.0, color=MUTED, linewidth=1, linestyle="--")
    axis.set(yscale="log", xlabel="ms per chunk (median)", ylabel="deviation from exact [% of action std]")
    axis.set_xlim(left=0)
    axis.grid(alpha=0.3)
    axis.set_title(title, loc="left", fontsize=11)
    figure.tight_layout()
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    """Write a PNG of 256 colours: pictures travel inside adaptations, which stay under a megabyte."""
    from matplotlib import pyplot as plt
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=100, format="png")
    plt.close(figure)
    palette = Image.open(buffer).convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE)
    palette.save(path, format="PNG", optimize=True)
