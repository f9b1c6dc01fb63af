"""`xvla adapt` refuses what could not end well: one line, exit code 2, nothing computed and nothing written."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from adapt_cli_helpers import ADAPT, fresh_fixture, template_fixture  # noqa: F401
from adapt_helpers import command, write_small_base
from conftest import ROBOT, tree, write_plugin
from data_helpers import write_dataset


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def change_data(root: Path) -> None:
    shutil.rmtree(root / "plugins" / "my_arm" / "demonstrations")
    write_dataset(root / "plugins" / "my_arm" / "demonstrations", (12, 9, 15))


def change_base(root: Path) -> None:
    shutil.rmtree(root / "base")
    write_small_base(root / "base", seed=1)


def write_bad_plan(root: Path) -> None:
    (root / "bad.yaml").write_text(
        "name: x\nstages:\n  - {name: a, steps: 5, warmup_steps: 9, lr: {soft_prompts: 1}}\n"
    )


FAULTS: dict[str, tuple[Callable[[Path], object], tuple[str, ...], str]] = {
    "unknown robot": (lambda r: None, ("adapt", "--embodiment", "nobody"), "unknown embodiment; found nobody"),
    "edited plugin": (
        lambda r: append(r / "plugins" / "my_arm" / "plugin.yaml", "# edited\n"),
        ADAPT,
        "Run `xvla add-embodiment plugins/my_arm` again",
    ),
    "changed dataset": (change_data, ADAPT, "the dataset is not the one the embodiment was registered with"),
    "changed base": (change_base, ADAPT, "the base's weights changed since the embodiment was registered"),
    "lost base": (lambda r: shutil.rmtree(r / "base"), ADAPT, "unknown base model"),
    "lost dataset": (
        lambda r: shutil.rmtree(r / "plugins" / "my_arm" / "demonstrations"),
        ADAPT,
        "dataset folder not found",
    ),
    "nothing to resume": (lambda r: None, (*ADAPT, "--resume"), "no interrupted run to resume"),
    "no such plan": (lambda r: None, (*ADAPT, "--plan", "gone.yaml"), "gone.yaml"),
    "no plan of that name": (
        lambda r: None,
        (*ADAPT, "--plan", "careful"),
        "--plan: neither a file nor the name of a plan; found careful; allowed: prompt-full",
    ),
    "bad plan": (write_bad_plan, (*ADAPT, "--plan", "bad.yaml"), "bad.yaml"),
    "bad number": (lambda r: None, (*ADAPT, "--steps", "0"), "--steps"),
    "resume with a plan": (lambda r: None, (*ADAPT, "--resume", "--then", "lora"), "--then: --resume goes on"),
    "resume with steps": (lambda r: None, (*ADAPT, "--resume", "--steps", "5"), "--steps: --resume goes on"),
    "two plans": (
        lambda r: None,
        (*ADAPT, "--plan", "plan.yaml", "--then", "lora"),
        "--then: --plan names every stage itself",
    ),
    "huge seed": (lambda r: None, (*ADAPT, "--seed", str(2**63)), "seed: Input should be less than or equal to"),
    "revision of a folder": (lambda r: None, (*ADAPT, "--revision", "main"), "a revision belongs to a Hub id"),
    "another base": (lambda r: None, (*ADAPT, "--base", "nope"), "unknown base model; found nope"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_no_longer_as_registered_is_one_line(
    fresh: Path, capfd: pytest.CaptureFixture[str], fault: str
) -> None:
    """Before any compute is spent, and without writing anything."""
    spoil, words, message = FAULTS[fault]
    spoil(fresh)
    before = tree(fresh)
    capfd.readouterr()
    assert command(*words, cwd=fresh) == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert tree(fresh) == before


def test_a_declared_start_that_the_base_cannot_give_is_not_registered(
    fresh: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Said with the declaration, not first when the robot is to be adapted."""
    write_plugin(fresh / "plugins" / "my_arm", {**ROBOT, "prompt": {"init": "copy", "copy_from": 6}})
    for name in ("check", "add-embodiment"):
        capfd.readouterr()
        assert command(name, "plugins/my_arm", "--base", "base", cwd=fresh) == 1
        said = "".join(capfd.readouterr())
        assert "XV507" in said
        assert "slot 6 is to be copied" in " ".join(said.split())


PROMPTS = {
    "no such slot": (("--init", "copy:6"), "has no such slot to copy; found 6; allowed: 0-5"),
    "long": ((), "this base reads 16"),
}


@pytest.mark.parametrize("fault", PROMPTS)
def test_what_would_fail_after_decoding_fails_before(
    template: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], fault: str
) -> None:
    """A start that the base cannot give and words that it cannot read."""
    start, message = PROMPTS[fault]
    root = tmp_path / "place"
    shutil.copytree(template, root)
    plugin = root / "plugins" / "my_arm"
    if not start:
        shutil.rmtree(plugin / "demonstrations")
        words = "open the second drawer and put the green ball into it"
        write_dataset(plugin / "demonstrations", (12, 9, 15, 10), task=words)
    assert command("add-embodiment", "plugins/my_arm", "--base", "base", cwd=root) == 0
    capfd.readouterr()
    assert command(*ADAPT, *start, cwd=root) == 2
    assert message in capfd.readouterr().err
    assert not list((root / "runs").glob("my_arm/*"))
