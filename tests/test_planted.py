"""Clean recordings are not accused, and planted mistakes are called by their names.

A share on the worked example runs always. All of it, on every robot whose recordings are here:
`pytest -m slow tests/test_planted.py` (hours of one core), or by robot
`python -m xvla_platform.testing.planted --plugin plugins/my_arm --json planted.json`.
"""

import json
from pathlib import Path

import pytest
from conftest import REPOSITORY

from xvla_platform.check.findings import CheckGroup, Finding, Rule
from xvla_platform.check.runner import catalogue
from xvla_platform.testing import planted
from xvla_platform.testing.faults import FAULTS

MY_ARM = REPOSITORY / "plugins" / "my_arm"
OTHERS = ("panda", "sawyer", "iiwa", "kinova3")
# One for each part of the checks; the whole table is the slow test's.
SOME = (
    "position_unit_declared",
    "angle_unit_declared",
    "spikes",
    "constant_dim",
    "quaternion_order",
    "rot6d_layout",
    "deltas_declared_absolute",
    "action_lag",
    "gripper_polarity_declared",
    "rate_recorded",
    "dark_camera",
    "swapped_cameras",
    "placeholder_instructions",
    "duplicated_episodes",
)


def test_every_expected_code_is_in_the_catalogue() -> None:
    known = catalogue()
    for fault in FAULTS:
        assert fault.codes, fault.name
        assert [code for code in (*fault.codes, *fault.also) if code not in known] == [], fault.name


def test_some_mistakes_on_the_worked_example() -> None:
    """One strength each, on a third of the recording."""
    chosen = [fault for fault in FAULTS if fault.name in SOME]
    proof = planted.prove([MY_ARM], faults=chosen, strengths=1, episodes=20)
    assert proof.clean == {"my_arm": ()}
    assert [case.fault for case in proof.cases if not case.named] == []
    assert len(proof.cases) == len(SOME)


def test_the_command_reports_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistake without a fitting finding is counted as missed, and the command fails."""
    out = tmp_path / "planted.json"
    words = ["--plugin", str(MY_ARM), "--fault", "missing_instructions", "--strengths", "1", "--episodes", "8"]
    assert planted.main([*words, "--base", "none", "--json", str(out)]) == 0
    text = capsys.readouterr().out
    assert "missing_instructions" in text
    assert "clean my_arm: no error" in text
    assert "1 kinds in 1 strengths, 1 cases: 1 named, 100.0%" in text
    assert json.loads(out.read_text())["share"] == 1.0
    assert planted.main(["--plugin", str(tmp_path / "nowhere"), "--base", "none"]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_missed_mistake_and_a_false_accusation_fail_the_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = Rule(code="ACME101", slug="always", title="always", why="always", fix="never")

    def accuse(context: object) -> object:
        yield Finding(code="ACME101", severity="error", field=None, measured="nothing")

    group = CheckGroup(name="acme", rules=(rule,), checks=(accuse,))  # type: ignore[arg-type]
    monkeypatch.setattr(planted, "check_groups", lambda: (group,))
    fault = next(fault for fault in FAULTS if fault.name == "missing_instructions")
    proof = planted.prove([MY_ARM], faults=[fault], strengths=1, episodes=4, base=None)
    assert proof.clean == {"my_arm": ("ACME101",)}
    assert (proof.share, proof.passed) == (0.0, False)
    (case,) = proof.cases
    assert (case.named, case.errors) == (False, ("ACME101",))


@pytest.mark.slow
@pytest.mark.timeout(14_400)
@pytest.mark.parametrize("name", ["my_arm", *OTHERS])
def test_all_mistakes_on_every_robot(name: str) -> None:
    """The acceptance: at least 95 % of all cases named, and no error on the clean recording."""
    folder = REPOSITORY / "plugins" / name
    if not (folder / "demonstrations").is_dir():
        pytest.skip(f"{name}'s recordings are not here: xvla record makes them")
    proof = planted.prove([folder], seeds=(0, 1))
    assert proof.clean == {name: ()}
    missed = sorted({f"{case.fault}: {case.strength}" for case in proof.cases if not case.named})
    assert proof.share >= planted.WANTED, "\n".join([f"{proof.share:.1%}", *missed])
