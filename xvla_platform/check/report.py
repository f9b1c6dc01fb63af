"""`report.html`: everything that was checked and found, as one page that works anywhere.

In: a report and its context. Out: one file without scripts and without anything to load. Whatever comes from the
dataset or the declaration is escaped text; pictures are inlined.
"""

import base64
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xvla_platform.check.contact_sheet import Strip, strips
from xvla_platform.check.findings import SEVERITIES, CheckContext, CheckReport, Finding
from xvla_platform.check.report_plots import FieldPlot, curve_plot, field_plots, lengths_plot
from xvla_platform.platform.files import write_text
from xvla_platform.specs.embodiment import CameraSpec

REPORT_NAME = "report.html"
SHEET_EPISODES = 6
PLOT_EPISODES = 3
EVIDENCE_EPISODES = 2
MAX_INSTRUCTIONS = 60
YAML_LINE = re.compile(r"[a-z_]+: \S")


def write_report(report: CheckReport, context: CheckContext, folder: Path) -> Path:
    """Write `report.html` into an existing folder and return its path."""
    page = render_report(report, context)
    path = folder / REPORT_NAME
    write_text(path, page)
    return path


def render_report(report: CheckReport, context: CheckContext) -> str:
    """The page as text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("xvla_platform.check", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["prose"] = _prose
    recording = context.recording
    shown = _evenly(len(recording.episodes), PLOT_EPISODES)
    plots = field_plots(recording, shown) if shown else []
    plot_items: list[dict[str, Any]] = [
        {"title": plot.title, "caption": plot.caption, "svg": Markup(plot.svg), "anchor": f"field-{number}"}
        for number, plot in enumerate(plots, start=1)
    ]
    findings = _findings(report, context, plots, plot_items)
    instructions = Counter(episode.instruction for episode in context.reader.episodes).most_common()
    return environment.get_template("report.html.j2").render(
        spec=context.spec,
        verdict=_verdict(report),
        counts=[(severity, len(report.of(severity))) for severity in SEVERITIES],
        facts=_facts(report, context),
        findings=findings,
        cameras=_cameras(report, context),
        any_flip=any(camera.flip != "none" or camera.channels != "rgb" for camera in context.spec.cameras),
        shown=shown,
        read=len(recording.episodes),
        plots=plot_items,
        lengths=_lengths(report, context),
        instructions=instructions[:MAX_INSTRUCTIONS],
        more_instructions=max(0, len(instructions) - MAX_INSTRUCTIONS),
        declaration=_declaration(context),
    )


def _prose(text: str) -> Any:
    """Escaped text in which what stands between backticks is code."""
    from markupsafe import Markup, escape

    pieces = str(text).split("`")
    if len(pieces) % 2 == 0:  # an odd backtick is a character of the data
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(piece) if place % 2 else escape(piece) for place, piece in enumerate(pieces)
    )


def _verdict(report: CheckReport) -> dict[str, str]:
    errors, warnings = len(report.of("error")), len(report.of("warning"))
    if errors:
        one = errors == 1
        text = f"Not ready: {errors} {'finding' if one else 'findings'} must be mended before training."
        return {"tone": "error", "text": text}
    if warnings:
        return {"tone": "warning", "text": "Usable; look at the warnings before compute is spent."}
    return {"tone": "good", "text": "The data bears out the declaration."}


def _facts(report: CheckReport, context: CheckContext) -> list[tuple[str, str]]:
    spec, reader, recording = context.spec, context.reader, context.recording
    frames = sum(episode.length for episode in reader.episodes)
    facts = [
        ("Dataset", reader.root.name),
        ("Format", spec.dataset.format),
        ("Episodes", f"{len(reader.episodes)}, of which {len(recording.episodes)} were read"),
        ("Frames", f"{frames}, {frames / recording.hz / 60:.1f} min"),
        ("Rate", f"{recording.hz:g} Hz" + (" recorded" if reader.info.fps else " declared")),
        ("Horizon", f"{spec.horizon_s:g} s, {spec.horizon_s * recording.hz:.0f} frames"),
        ("Cameras", ", ".join(camera.name for camera in spec.ordered_cameras)),
        ("State", f"{spec.proprio.size} numbers"),
        ("Action", f"{spec.action.size} numbers"),
    ]
    if reader.info.robot_type:
        facts.append(("Robot, as recorded", str(reader.info.robot_type)))
    if context.base is not None:
        facts.append(("Base", context.base.id))
    if context.split:
        facts.append(("Split", ", ".join(f"{len(part)} {name}" for name, part in context.split.items())))
    return facts


def _findings(
    report: CheckReport, context: CheckContext, plots: list[FieldPlot], items: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Each finding with its rule's words and its evidence; a figure stands with the first finding that needs it."""
    out = []
    for number, finding in enumerate(report.findings, start=1):
        rule = report.rules[finding.code]
        fix = finding.fix or rule.fix
        code = "`" not in fix and YAML_LINE.match(fix) is not None
        entry: dict[str, Any] = {
            "code": finding.code,
            "slug": rule.slug,
            "severity": finding.severity,
            "title": rule.title,
            "field": finding.field,
            "measured": finding.measured,
            "why": rule.why,
            "fix": f"`{fix}`" if code else fix,
            "fix_is_code": code,
            "episodes": _episode_list(finding.episodes),
            "strips": _evidence(report, context, finding),
            "curve": _curve(finding),
            "plot": None,
            "link": None,
        }
        for plot, item in zip(plots, items, strict=True):
            if not _concerns(finding, plot):
                continue
            if item["svg"] and entry["plot"] is None:
                entry["plot"] = {"title": plot.title, "svg": item["svg"]}
                item |= {"svg": None, "shown_in": number, "shown_code": finding.code}
                break
            if entry["link"] is None:
                entry["link"] = item["anchor"] if item["svg"] else f"finding-{item['shown_in']}"
        out.append(entry)
    return out


def _concerns(finding: Finding, plot: FieldPlot) -> bool:
    if not finding.field:
        return False
    place = finding.field.split("[")[0]
    return place in plot.fields or any(field.startswith(f"{place}.") for field in plot.fields if place == "action")


def _evidence(report: CheckReport, context: CheckContext, finding: Finding) -> list[dict[str, Any]]:
    """Frames of the camera that a finding names: of the episodes concerned, with one that is not beside them."""
    cameras = {camera.name: camera for camera in context.spec.cameras}
    camera = cameras.get((finding.field or "").removeprefix("cameras."))
    if camera is None or not context.recording.episodes:
        return []
    read = [episode.index for episode in context.recording.episodes]
    concerned = [episode for episode in finding.episodes if episode in read][:EVIDENCE_EPISODES]
    elsewhere = {episode for one in report.findings if one is not finding for episode in one.episodes}
    clean = [episode for episode in read if episode not in elsewhere and episode not in finding.episodes]
    spare = clean or [episode for episode in read if episode not in finding.episodes]
    other = spare[0] if spare else (None if concerned else read[0])
    tone = finding.severity
    chosen: list[tuple[CameraSpec, int, str | None]] = [(camera, episode, tone) for episode in concerned]
    if other is not None:
        chosen.append((camera, other, None if concerned else tone))
    partner = cameras.get(str(finding.numbers.get("other") or finding.numbers.get("partner")))
    if partner is not None:
        chosen.append((partner, (concerned or spare or read)[0], tone))
    out = []
    for one, episode, marked in chosen:
        note = None if marked else "not concerned"
        out += [_strip(context, strip, marked, note) for strip in _read(context, one, [episode])]
    return out


def _curve(finding: Finding) -> Any:
    from markupsafe import Markup

    numbers = finding.numbers
    if not ({"lags", "explained", "frames"} <= numbers.keys() and isinstance(numbers["frames"], int)):
        return None
    explained = [100 * float(share) for share in numbers["explained"]]
    return Markup(
        curve_plot(
            numbers["lags"],
            explained,
            xlabel="images later than the numbers by [frames]",
            ylabel="explained [%]",
            mark=numbers["frames"],
        )
    )


def _cameras(report: CheckReport, context: CheckContext) -> list[dict[str, Any]]:
    measured: Mapping[str, Any] = context.facts.get("cameras", {})
    read = [episode.index for episode in context.recording.episodes]
    chosen = [read[place] for place in _evenly(len(read), SHEET_EPISODES)]
    out = []
    for camera in context.spec.ordered_cameras:
        own = [finding for finding in report.findings if finding.field == f"cameras.{camera.name}"]
        rows = []
        for strip in _read(context, camera, chosen):
            tones = [one.severity for one in own if not one.episodes or strip.episode in one.episodes]
            worst = next((tone for tone in ("error", "warning") if tone in tones), None)
            rows.append(_strip(context, strip, worst, None))
        out.append(
            {
                "name": camera.name,
                "badges": [{"tone": finding.severity, "text": report.rules[finding.code].slug} for finding in own],
                "declared": _declared(camera),
                "measured": _measured(measured.get(camera.name)),
                "strips": rows,
            }
        )
    return out


def _declared(camera: CameraSpec) -> str:
    height, width = camera.resolution
    text = f"Declared {camera.role}, {camera.mount}, {width} x {height} px, key {camera.key}"
    text += "" if camera.flip == "none" else f", flip {camera.flip}"
    return text + ("" if camera.channels == "rgb" else f", channels {camera.channels}") + "."


def _measured(facts: Mapping[str, Any] | None) -> str:
    if not facts:
        return ""
    parts = []
    if facts.get("mount"):
        parts.append(f"looks {'mounted on the wrist' if facts['mount'] == 'wrist' else 'fixed'}")
    if facts.get("flip") is not None:
        words = {"none": "plain", "horizontal": "mirrored", "vertical": "mirrored", "both": "upside down"}
        parts.append(f"recorded images {words[facts['flip']]}")
    if facts.get("delay_frames") is not None:
        late = facts["delay_frames"]
        parts.append(
            "in time with the numbers" if late == 0 else f"{abs(late)} frames {'late' if late > 0 else 'early'}"
        )
    return f"Measured: {', '.join(parts)}." if parts else "Measured: its image does not follow the arm."


def _read(context: CheckContext, camera: CameraSpec, episodes: list[int]) -> tuple[Strip, ...]:
    if camera.key not in context.reader.info.features:
        return (Strip(camera=camera.name, episode=0, pictures=(), fault=f"the dataset has no key {camera.key}"),)
    return strips(context.reader, camera, episodes)


def _strip(context: CheckContext, strip: Strip, tone: str | None, note: str | None) -> dict[str, Any]:
    return {
        "camera": strip.camera,
        "episode": strip.episode,
        "instruction": context.reader.episodes[strip.episode].instruction,
        "tone": tone,
        "note": note,
        "fault": strip.fault,
        "pictures": [
            {
                "frame": picture.frame,
                "width": picture.width,
                "height": picture.height,
                "data": base64.b64encode(picture.jpeg).decode(),
            }
            for picture in strip.pictures
        ],
    }


def _lengths(report: CheckReport, context: CheckContext) -> dict[str, Any]:
    from markupsafe import Markup

    recording = context.recording
    seconds = [episode.length / recording.hz for episode in recording.episodes]
    if not seconds:
        return {"caption": "No episode could be read.", "svg": ""}
    caption = f"{min(seconds):.1f} to {max(seconds):.1f} s, median {np.median(seconds):.1f} s."
    idle = context.facts.get("idle")
    if isinstance(idle, Mapping) and "share" in idle:
        caption += f" The robot stands still in {idle['share']:.1%} of the frames"
        caption += f", at most {idle['longest_s']:.1f} s at a time." if "longest_s" in idle else "."
    return {"caption": caption, "svg": Markup(lengths_plot(recording, context.spec.horizon_s))}


def _declaration(context: CheckContext) -> str:
    import yaml

    return yaml.safe_dump(context.spec.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True)


def _episode_list(episodes: tuple[int, ...]) -> str:
    shown = ", ".join(str(episode) for episode in episodes[:24])
    return shown + (f" and {len(episodes) - 24} more" if len(episodes) > 24 else "")


def _evenly(count: int, wanted: int) -> list[int]:
    return sorted({int(place) for place in np.linspace(0, count - 1, min(count, wanted)).round()}) if count else []
