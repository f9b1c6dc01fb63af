"""Camera faults planted in the example recording are named; the recording itself has none."""

from typing import Any

import pytest
from camera_helpers import (
    EPISODES,
    FRONT,
    WRIST,
    Change,
    bgr,
    black,
    camera,
    context,
    copied,
    frozen,
    late,
    mirrored,
    slow,
    swapped,
    upended,
    white,
)

from xvla_platform.check.cameras import CHECKS, RULES, check_cameras
from xvla_platform.check.findings import Finding

SOME = (2, 5, 9, 11, 14, 16)


def found(*args: Any, **kwargs: Any) -> list[Finding]:
    return list(check_cameras(context(*args, **kwargs)))


def codes(findings: list[Finding]) -> set[tuple[str, str | None]]:
    return {(finding.code, finding.field) for finding in findings}


def test_the_clean_recording_has_no_finding() -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("change", "key", "expected"),
    [
        (black, WRIST, {("XV301", "cameras.wrist")}),
        (white, FRONT, {("XV302", "cameras.front")}),
        (frozen, FRONT, {("XV303", "cameras.front")}),
        (copied, WRIST, {("XV304", "cameras.wrist")}),
        (swapped, None, {("XV305", "cameras.front"), ("XV305", "cameras.wrist")}),
        (mirrored, FRONT, {("XV307", "cameras.front")}),
        (upended, FRONT, {("XV307", "cameras.front")}),
        (late(4), FRONT, {("XV308", "cameras.front")}),
        (late(-8), FRONT, {("XV308", "cameras.front")}),
        (slow, FRONT, {("XV311", "cameras.front")}),
    ],
    ids=["black", "white", "frozen", "copied", "swapped", "mirrored", "upended", "late", "early", "slow"],
)
def test_a_fault_of_a_whole_stream_is_named(
    change: Change, key: str | None, expected: set[tuple[str, str | None]]
) -> None:
    findings = found(change, key=key)
    assert codes(findings) == expected
    assert all(not finding.episodes for finding in findings)


@pytest.mark.parametrize(
    ("change", "key", "code"),
    [(black, WRIST, "XV301"), (frozen, FRONT, "XV303"), (copied, WRIST, "XV304"), (swapped, None, "XV306")],
    ids=["black", "frozen", "copied", "swapped"],
)
def test_a_fault_of_some_episodes_names_exactly_them(change: Change, key: str | None, code: str) -> None:
    findings = found(change, key=key, episodes=SOME)
    assert {finding.code for finding in findings} == {code}
    assert all(finding.episodes == SOME for finding in findings)


@pytest.mark.parametrize(("change", "code"), [(mirrored, "XV307"), (late(5), "XV308")], ids=["mirrored", "late"])
def test_motion_faults_of_some_episodes_accuse_no_other(change: Change, code: str) -> None:
    findings = found(change, key=FRONT, episodes=SOME)
    assert codes(findings) == {(code, "cameras.front")}
    assert len(findings[0].episodes) >= 3
    assert set(findings[0].episodes) <= set(SOME)


def test_a_declared_flip_is_what_makes_a_mirrored_recording_right() -> None:
    declared = camera("front", flip="horizontal")
    assert found(mirrored, key=FRONT, spec=declared) == []
    wrong = found(spec=declared)
    assert codes(wrong) == {("XV307", "cameras.front")}
    assert "flip: none" in str(wrong[0].fix)


def test_exchanged_keys_in_the_declaration_say_which_keys_to_write() -> None:
    spec = camera("front", key=WRIST)
    spec = spec.model_copy(
        update={
            "cameras": tuple(
                one.model_copy(update={"key": FRONT}) if one.name == "wrist" else one for one in spec.cameras
            )
        }
    )
    findings = found(spec=spec)
    assert codes(findings) == {("XV305", "cameras.front"), ("XV305", "cameras.wrist")}
    assert f"`front` gets `{FRONT}`" in str(findings[0].fix)
    assert all(finding.severity == "error" for finding in findings)


def test_a_wrist_camera_as_main_view_is_said() -> None:
    spec = camera("front", role="auxiliary")
    spec = spec.model_copy(
        update={
            "cameras": tuple(
                one.model_copy(update={"role": "main"}) if one.name == "wrist" else one for one in spec.cameras
            )
        }
    )
    assert codes(found(spec=spec)) == {("XV314", "cameras.wrist")}


def test_colours_are_judged_by_what_instructions_call_red_and_blue() -> None:
    findings = found(bgr, key=WRIST)
    assert codes(findings) == {("XV309", "cameras.wrist")}
    assert "channels: bgr" in str(findings[0].fix)
    assert found(bgr, key=WRIST, spec=camera("wrist", channels="bgr")) == []


def test_every_rule_has_words_and_every_check_is_registered() -> None:
    assert (check_cameras,) == CHECKS
    assert len({rule.code for rule in RULES}) == len(RULES)
    assert all(rule.code.startswith("XV3") and rule.why and rule.fix for rule in RULES)
    assert max(SOME) < EPISODES
