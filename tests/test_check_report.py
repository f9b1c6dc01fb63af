"""`report.html` stands alone, holds every finding, and keeps what comes from a dataset as text."""

import dataclasses
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from camera_helpers import FRONT, Changed, black, context, kept

from xvla_platform.check.cameras import RULES as CAMERA_RULES
from xvla_platform.check.cameras import check_cameras
from xvla_platform.check.contact_sheet import contact_sheet, strips
from xvla_platform.check.findings import CheckContext, CheckReport, Finding, Rule
from xvla_platform.check.report import write_report
from xvla_platform.measure.recording import load_recording

HOSTILE = '<script>document.title="taken"</script><img src=x onerror=document.title="taken"> & "co"'
UNIT = Rule(
    code="XV101",
    slug="unit-of-position",
    title="positions are in another unit",
    why="The loss is dominated by it.",
    fix="Write `unit: mm`.",
)


class Page(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def report_context() -> CheckContext:
    """The example with a camera that is black in some episodes, and hostile instructions and descriptions."""
    one = context(black, key=FRONT, episodes=(3, 4))
    reader: Any = Changed(kept(), black, (3, 4), FRONT)
    reader.episodes = [dataclasses.replace(episode, instruction=HOSTILE) for episode in reader.episodes]
    spec = one.spec.model_copy(update={"description": HOSTILE})
    return CheckContext(spec=spec, reader=reader, recording=load_recording(reader, spec))


@pytest.fixture(scope="module")
def report(report_context: CheckContext) -> CheckReport:
    planted = (
        Finding(code="XV101", severity="error", field="proprio.position", measured=f"they span 434 {HOSTILE}"),
        Finding(code="XV101", severity="warning", field="action.position", measured="they span 435", fix="unit: mm"),
    )
    found = tuple(check_cameras(report_context))
    assert any(finding.code == "XV301" for finding in found)
    rules = {rule.code: rule for rule in (UNIT, *CAMERA_RULES)}
    return CheckReport(findings=planted + found, facts={}, rules=rules)


@pytest.fixture(scope="module")
def path(report: CheckReport, report_context: CheckContext, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(report, report_context, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def test_every_finding_stands_there_with_reason_and_remedy(page: Page, report: CheckReport) -> None:
    for finding in report.findings:
        rule = report.rules[finding.code]
        for words in (finding.code, rule.slug, rule.title, finding.measured, rule.why):
            assert words in page.text
    assert "unit: mm" in page.text
    assert "Not ready" in page.text


def test_nothing_is_loaded_and_nothing_runs(path: Path, page: Page) -> None:
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "iframe", "object", "embed", "link", "form", "base"}
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "data"):
            assert re.match(r"(data:image/jpeg;base64,|#)", attributes.get(name) or "#"), (tag, attributes)
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"https?://|url\((?!#)|@import", text)
    assert "default-src 'none'" in text


def test_what_comes_from_the_data_is_text(page: Page) -> None:
    assert HOSTILE in page.text
    assert not [tag for tag, attributes in page.tags if tag == "img" and attributes.get("src") == "x"]


def test_cameras_fields_and_evidence_are_shown(path: Path, page: Page) -> None:
    anchors = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(anchors) == len(set(anchors))
    targets = [str(attributes["href"])[1:] for tag, attributes in page.tags if tag == "a" and attributes.get("href")]
    assert set(targets) <= set(anchors)
    pictures = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert any(alt is not None and alt.startswith("wrist, episode 0") for alt in pictures)
    assert any(alt is not None and alt.startswith("front, episode 3") for alt in pictures)
    for field in ("position", "rotation", "gripper"):
        assert f"proprio.{field} and action.{field}" in page.text
    assert "x [mm]" in page.text
    assert path.stat().st_size < 3_000_000


def test_a_report_without_findings_says_so(report_context: CheckContext, tmp_path: Path) -> None:
    clean = CheckReport(findings=(), facts={}, rules={})
    page = Page(write_report(clean, report_context, tmp_path).read_text(encoding="utf-8"))
    assert "bears out the declaration" in page.text
    assert "findings" not in [attributes.get("id") for _, attributes in page.tags]


def test_an_unreadable_video_is_said_in_its_place(report_context: CheckContext) -> None:
    from xvla_platform.errors import XvlaError

    def broken(reader: Any, episode: int, key: str, indices: np.ndarray) -> np.ndarray:
        raise XvlaError("video is damaged", file="file-000.mp4")

    reader: Any = Changed(kept(), broken, (1,), FRONT)
    good, bad = strips(reader, report_context.spec.cameras[0], [0, 1])
    assert len(good.pictures) == 3
    assert bad.pictures == ()
    assert bad.fault is not None
    assert "video is damaged" in bad.fault


def test_contact_sheet_is_one_png_with_a_row_a_camera(report_context: CheckContext) -> None:
    import io

    from PIL import Image

    sheet = Image.open(io.BytesIO(contact_sheet(report_context.reader, report_context.spec, height=64)))
    assert sheet.format == "PNG"
    assert sheet.size == (3 * 64, 2 * (64 + 16))


def test_a_browser_shows_it_and_runs_nothing(path: Path, tmp_path: Path) -> None:
    browser = next((found for name in ("chromium", "google-chrome") if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no browser on this machine")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    dom = subprocess.run(
        [*command, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120, check=True
    ).stdout
    shown = Page(dom)
    assert "taken" not in (re.search(r"<title>(.*?)</title>", dom, re.DOTALL) or [""])[0]
    assert not [tag for tag, _ in shown.tags if tag == "script"]
    assert sum(tag == "article" for tag, _ in shown.tags) >= 3
    picture = tmp_path / "shot.png"
    subprocess.run(
        [*command, f"--screenshot={picture}", "--window-size=1000,1400", path.as_uri()],
        capture_output=True,
        timeout=120,
        check=True,
    )
    from PIL import Image

    colours = Image.open(picture).convert("RGB").getcolors(maxcolors=10**7)
    assert colours is not None
    assert len(colours) > 1000  # pictures and text, not an empty page
