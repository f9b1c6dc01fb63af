"""Plots of a recording as SVG text that takes the colours of the page it stands in.

In: a recording. Out: one SVG a field (state and absolute action together): values over time for a few
episodes, and their distribution over all. Ink is `currentColor`, so that light and dark pages both work.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xvla_platform.data.canonical import to_canonical
from xvla_platform.data.reader import FloatArray
from xvla_platform.data.rotations import from_matrix
from xvla_platform.errors import XvlaError
from xvla_platform.measure.recording import EpisodeData, Recording
from xvla_platform.specs.fields import FieldSpec

INK = "#123457"  # replaced by currentColor
STATE, ACTION, OPEN, CLOSED = "#2f7fd1", "#e0622d", "#2b9a66", "#a150c4"
POINTS = 160  # of one curve
MAX_ROWS = 9
BINS = 28


@dataclass(frozen=True, kw_only=True)
class FieldPlot:
    """One figure: `fields` are the places (`proprio.position`, `action.position`) that it shows."""

    title: str
    caption: str
    fields: tuple[str, ...]
    svg: str


@dataclass(frozen=True, kw_only=True)
class _Series:
    label: str
    colour: str
    style: str
    values: list[FloatArray]  # [L, n] of each episode of the recording


def field_plots(recording: Recording, shown: Sequence[int]) -> list[FieldPlot]:
    """A figure for every declared field but ignored ones, of the episodes at these places of the recording."""
    spec, plots, done = recording.spec, [], set()
    for state in spec.proprio.fields:
        if state.kind == "ignored":
            continue
        partner = next(
            (
                action
                for action in spec.action.fields
                if (action.kind, action.arm, action.size, action.unit, action.format)
                == (state.kind, state.arm, state.size, state.unit, state.format)
                and action.reference == "absolute"
                and action.name not in done
            ),
            None,
        )
        parts: list[tuple[str, FieldSpec]] = [("proprio", state)]
        if partner is not None:
            done.add(partner.name)
            parts.append(("action", partner))
        plots += _figures(recording, parts, shown)
    for action in spec.action.fields:
        if action.kind != "ignored" and action.name not in done:
            plots += _figures(recording, [("action", action)], shown)
    return plots


def lengths_plot(recording: Recording, horizon_s: float) -> str:
    """Length of every episode read in seconds, with the horizon."""
    figure, axis = _subplots(1, 1, height=1.9)
    seconds = np.array([episode.length for episode in recording.episodes]) / recording.hz
    axis.bar(np.arange(len(seconds)), seconds, color=STATE, width=0.72, alpha=0.8)
    axis.axhline(horizon_s, color=ACTION, linewidth=1.2, linestyle="--", label=f"horizon {horizon_s:g} s")
    axis.set_ylabel("seconds")
    axis.set_xlabel("episode, in order")
    axis.margins(x=0.01)
    places = np.unique(np.linspace(0, len(seconds) - 1, 8).round().astype(int))
    axis.set_xticks(places, [str(recording.episodes[place].index) for place in places])
    axis.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 0.98), labelcolor=INK)
    axis.set_axisbelow(True)
    return _svg(figure, "lengths")


def curve_plot(x: Sequence[float], y: Sequence[float], *, xlabel: str, ylabel: str, mark: float | None = None) -> str:
    """One curve with a marked place, as evidence beside a finding."""
    figure, axis = _subplots(1, 1, height=1.8, width=4.6)
    axis.plot(x, y, color=STATE, linewidth=1.6, marker="o", markersize=3)
    if mark is not None:
        axis.axvline(mark, color=ACTION, linewidth=1.2, linestyle="--")
    axis.set_xlabel(xlabel)
    axis.set_ylabel(ylabel)
    return _svg(figure, f"{xlabel}{ylabel}{mark}")


def _figures(recording: Recording, parts: list[tuple[str, FieldSpec]], shown: Sequence[int]) -> list[FieldPlot]:
    first = parts[0][1]
    places = tuple(f"{vector}.{field.name}" for vector, field in parts)
    unit = _unit(first)
    series = [
        _Series(
            label=f"{vector}.{field.name}",
            colour=STATE if vector == "proprio" else ACTION,
            style="-" if vector == "proprio" else (0, (4, 1.5)),  # type: ignore[arg-type]
            values=recording.column(vector, field.name),
        )
        for vector, field in parts
    ]
    title = " and ".join(places)
    plots = []
    if first.kind == "rotation" and first.size != 3:
        turned = _axis_angle(recording, parts, series)
        if turned is not None:
            labels = [f"axis-angle {axis} [deg]" for axis in "xyz"]
            plots.append(
                FieldPlot(
                    title=title,
                    caption=f"Turn of the tool as axis times angle, from the recorded {first.format}.",
                    fields=places,
                    svg=_rows(recording, turned, labels, shown, f"{title} turned", None),
                )
            )
    labels = [f"{name} [{unit}]" if unit else name for name in _dims(first)]
    lines = [("open", first.open, OPEN), ("closed", first.closed, CLOSED)] if first.kind == "gripper" else None
    caption = f"As recorded, declared {first.kind}" + (f" in {unit}" if unit else "")
    caption += f", format {first.format}." if first.format else "."
    if lines:
        caption += f" Dashed lines: declared open ({first.open:g}) and closed ({first.closed:g})."
    plots.append(
        FieldPlot(
            title=title, caption=caption, fields=places, svg=_rows(recording, series, labels, shown, title, lines)
        )
    )
    return plots


def _rows(
    recording: Recording,
    series: list[_Series],
    labels: list[str],
    shown: Sequence[int],
    name: str,
    lines: list[tuple[str, Any, str]] | None,
) -> str:
    count = min(len(labels), MAX_ROWS)
    figure, axes = _subplots(count, 2, height=1.15 * count + 0.55, ratios=(4.2, 1))
    episodes = [recording.episodes[place] for place in shown]
    offsets = _offsets(episodes, recording.hz)
    for row in range(count):
        time_axis, value_axis = axes[row]
        for one in series:
            for place, offset in zip(shown, offsets, strict=True):
                values = one.values[place][:, row]
                kept = np.unique(np.linspace(0, len(values) - 1, min(POINTS, len(values))).round().astype(int))
                time_axis.plot(
                    offset + kept / recording.hz, values[kept], color=one.colour, linestyle=one.style, linewidth=1.2
                )
            _histogram(value_axis, [episode[:, row] for episode in one.values], one.colour)
        for text, value, colour in lines or ():
            time_axis.axhline(value, color=colour, linestyle=":", linewidth=1.2)
            value_axis.axhline(value, color=colour, linestyle=":", linewidth=1.2)
            time_axis.annotate(
                text,
                (0.995, value),
                xycoords=("axes fraction", "data"),
                color=colour,
                fontsize=7.5,
                ha="right",
                va="bottom",
            )
        time_axis.set_ylabel(labels[row], fontsize=8)
        value_axis.sharey(time_axis)
        value_axis.tick_params(labelleft=False)
        value_axis.set_xticks([])
        value_axis.grid(visible=False)
        if row < count - 1:
            time_axis.tick_params(labelbottom=False)
        for offset in offsets[1:]:
            time_axis.axvline(offset - _gap(episodes, recording.hz) / 2, color=INK, linewidth=0.6, alpha=0.35)
    for episode, offset in zip(episodes, offsets, strict=True):
        axes[0][0].annotate(
            f"episode {episode.index}",
            (offset, 1.02),
            xycoords=("data", "axes fraction"),
            fontsize=8,
            va="bottom",
            color=INK,
        )
    axes[0][1].annotate("all episodes", (0, 1.02), xycoords="axes fraction", fontsize=8, va="bottom", color=INK)
    axes[count - 1][0].set_xlabel("seconds, one episode after another")
    return _svg(figure, name)


def _histogram(axis: Any, values: list[FloatArray], colour: str) -> None:
    flat = np.concatenate(values)
    flat = flat[np.isfinite(flat)]
    if not len(flat):
        return
    low, high = float(flat.min()), float(flat.max())
    if high - low <= 1e-9 * max(1.0, abs(high)):
        axis.barh([low], [1.0], height=max(abs(low) * 0.02, 1e-3), color=colour, alpha=0.45)
        return
    counts, edges = np.histogram(flat, bins=BINS)
    axis.stairs(counts / counts.max(), edges, orientation="horizontal", fill=True, color=colour, alpha=0.35)
    for quantile in np.quantile(flat, [0.01, 0.99]):
        axis.axhline(quantile, color=colour, linewidth=0.9, alpha=0.9)


def _axis_angle(
    recording: Recording, parts: list[tuple[str, FieldSpec]], series: list[_Series]
) -> list[_Series] | None:
    out = []
    for (_, field), one in zip(parts, series, strict=True):
        try:
            turned = [_unwound(from_matrix(to_canonical(field, values), "axis_angle", "deg")) for values in one.values]
        except XvlaError:
            return None
        out.append(_Series(label=one.label, colour=one.colour, style=one.style, values=turned))
    return out


def _unwound(vectors: FloatArray) -> FloatArray:
    """Axis-angle vectors [L, 3] in degrees without jumps where the angle passes 180."""
    out = vectors.copy()
    for row in range(1, len(out)):
        length = np.linalg.norm(out[row])
        if length > 90:
            other = out[row] * (1 - 360 / length)
            if np.linalg.norm(other - out[row - 1]) < np.linalg.norm(out[row] - out[row - 1]):
                out[row] = other
    return out


def _dims(field: FieldSpec) -> list[str]:
    if field.kind == "position":
        return ["x", "y", "z"]
    if field.format in ("quaternion_xyzw", "quaternion_wxyz"):
        return list(field.format[-4:])
    if field.format and field.format.startswith("euler_"):
        return [f"about {axis}" for axis in field.format.split("_")[1]]
    if field.format == "axis_angle":
        return [f"axis-angle {axis}" for axis in "xyz"]
    return [field.name] if field.size == 1 else [f"[{number}]" for number in range(field.size)]


def _unit(field: FieldSpec) -> str:
    if field.unit is None:
        return ""
    return field.unit if field.scale == 1.0 else f"{field.scale:g} {field.unit}"


def _gap(episodes: list[EpisodeData], hz: float) -> float:
    return 0.06 * sum(episode.length for episode in episodes) / max(len(episodes), 1) / hz


def _offsets(episodes: list[EpisodeData], hz: float) -> list[float]:
    """Where each episode starts on a common time axis, in seconds."""
    gap, start, out = _gap(episodes, hz), 0.0, []
    for episode in episodes:
        out.append(start)
        start += episode.length / hz + gap
    return out


def _subplots(
    rows: int, columns: int, *, height: float, width: float = 8.6, ratios: tuple[float, ...] | None = None
) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, width_ratios=ratios)
    for axis in axes.flat:
        for name, spine in axis.spines.items():
            spine.set_visible(name in ("left", "bottom"))
            spine.set_color(INK)
            spine.set_alpha(0.4)
        axis.tick_params(colors=INK, labelsize=8, length=3, width=0.6)
        axis.grid(alpha=0.18, color=INK, linewidth=0.6)
        axis.xaxis.label.set_color(INK)
        axis.yaxis.label.set_color(INK)
        axis.xaxis.label.set_size(8)
        axis.yaxis.label.set_size(8)
        axis.set_facecolor("none")
    return figure, (axes[0, 0] if rows == columns == 1 else axes)


def _svg(figure: Any, name: str) -> str:
    """The figure as an SVG element whose ids are its own and whose ink is the page's."""
    import matplotlib

    buffer = io.StringIO()
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.family": "sans-serif",
        "path.simplify": True,
    }
    with matplotlib.rc_context(settings):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' id="(?:figure|axes|patch|line2d|text|matplotlib\.axis|xtick|ytick|legend)_\d+"', "", text)
    text = text.replace(INK, "currentColor")
    text = re.sub(r"(\d+\.\d\d)\d+", r"\1", text)  # a hundredth of a point is more than a screen shows
    text = re.sub(r"font-family: [^;\"]*;?\s?", "", text)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)  # it would style the whole page
    text = re.sub(
        r'<svg[^>]*?viewBox="([^"]*)"[^>]*>',
        r'<svg viewBox="\1" role="img" preserveAspectRatio="xMinYMin">',
        text,
        count=1,
    )
    return re.sub(r"\n\s*", "\n", text)
