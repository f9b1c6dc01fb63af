"""The environment kit on the page's example: it keeps every promise, and each mistake breaks the promise it should."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from closed_loop_helpers import dot_spec, page_files, write_dot_arm
from conftest import one_line_error

from xvla_platform.cli.closed_loop import names
from xvla_platform.closed_loop.sources import environment_source
from xvla_platform.errors import XvlaError
from xvla_platform.testing import NotConformantError, assert_environment_conformant


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_dot_arm(tmp_path / "plugins" / "dot_arm")


def edit(folder: Path, old: str, new: str) -> None:
    """Change the page's plugin.py in one place."""
    text = (folder / "plugin.py").read_text()
    assert text.count(old) == 1, old
    (folder / "plugin.py").write_text(text.replace(old, new))


def test_the_pages_test_passes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page says its reader should run, run."""
    monkeypatch.chdir(folder.parents[1])
    names: dict[str, Callable[[], None]] = {}
    exec(page_files()["test_dot_arm.py"], names)
    names["test_the_table_keeps_its_promises"]()


@pytest.mark.parametrize(
    ("code", "old", "new"),
    [
        ("KIT501", "class Table(gymnasium.Env):\n    metadata = {", "class Table:\n    metadata = {"),
        ("KIT501", '"time_limit_s": 6.0', '"control_hz": 50'),
        ("KIT502", "= spaces_of(request.spec)", "= gymnasium.spaces.Dict({}), spaces_of(request.spec)[1]"),
        ("KIT503", '{"top": self._render()}', '{"top": self._render()[:60]}'),
        ("KIT503", "np.array([*self.hand, *STILL])", "np.array([*self.hand, *STILL], dtype=np.float32)"),
        ("KIT503", '"success": success,', '"success": float(success),'),
        ("KIT503", 'self.task = options["task"]', 'self.task = options["job"]'),
        ("KIT504", '"seconds": self.ticks / self.hz', '"seconds": 0.0'),
        ("KIT505", "self.hand = np.zeros(2)", "self.hand = getattr(self, 'hand', np.zeros(2)) + 0.001"),
        ("KIT505", "super().reset(seed=seed)", "super().reset(seed=None)"),
        ("KIT506", "super().reset(seed=seed)", "super().reset(seed=1)"),
        ("KIT507", "    def _sentence", "    def close(self):\n        raise OSError('busy')\n\n    def _sentence"),
    ],
)
def test_each_mistake_breaks_its_promise(folder: Path, code: str, old: str, new: str) -> None:
    """One edit of the example, one promise."""
    edit(folder, old, new)
    with pytest.raises(NotConformantError) as caught:
        assert_environment_conformant(folder)
    assert caught.value.code == code, str(caught.value)
    assert "\n" not in str(caught.value)


def test_which_environment_is_meant(folder: Path) -> None:
    """The only one that has the robot, or the one that is named; otherwise the names are listed."""
    assert environment_source(dot_spec(), folder).name == "table"
    twice = 'Environment(name="table", make=Table, summary="a dot over a table")'
    edit(folder, twice, f'{twice}, Environment(name="bench", make=Table)')
    with pytest.raises(XvlaError, match="several environments have this robot; found table, bench"):
        environment_source(dot_spec(), folder)
    assert environment_source(dot_spec(), folder, name="bench").name == "bench"
    with pytest.raises(XvlaError, match=r"unknown environment; found shed; allowed: .*table, bench"):
        environment_source(dot_spec(), folder, name="shed")
    edit(folder, 'name="bench", make=Table', 'name="bench", make=Table, fits=lambda spec, folder: False')
    assert environment_source(dot_spec(), folder).name == "table"
    with pytest.raises(XvlaError, match="does not have the robot; found bench"):
        environment_source(dot_spec(), folder, name="bench")
    (folder / "plugin.py").unlink()
    with pytest.raises(XvlaError, match="no environment has this robot"):
        environment_source(dot_spec(), folder)


def test_an_environment_that_cannot_be_made_is_one_line(folder: Path) -> None:
    """The plugin and the cure are named, whatever raised: the hook, what it fits, or the making."""
    told = "mend .*plugin.py:"
    for old, new, raised in (
        ("self.hz =", "raise OSError('no such port'); self.hz =", f"environment table: cannot be made.*port.*{told}"),
        ("self.hz =", "import robosuite_of_another; self.hz =", "package that the plugin needs: robosuite_of_another"),
        ("self.hz =", "raise ModuleNotFoundError(name='mujoco'); self.hz =", r"pip install 'xvla-platform\[sim\]'"),
        ("self.hz =", "raise ImportError('Cannot initialize a EGL display'); self.hz =", "MUJOCO_GL=egl, or osmesa"),
        ("make=Table,", "make='moon.base:make',", "package that the plugin needs: moon"),
        ("make=Table,", "make='math:moon',", "cannot be made: AttributeError"),
        ("make=Table,", "make=Table, fits=lambda spec, folder: 1 / 0,", "cannot be made: ZeroDivisionError"),
        ("return [Environment(", "raise OSError('bad day'); return [Environment(", "hook register_environments failed"),
    ):
        edit(folder, old, new)
        with pytest.raises(XvlaError, match=f"(?i){raised}") as caught:
            environment_source(dot_spec(), folder)()
        assert "dot_arm" in str(caught.value)
        assert "\n" not in str(caught.value)
        edit(folder, new, old)


def test_help_lists_what_acting_takes(xvla: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """The options of closed loop are there, and refused without it."""
    shown = xvla("eval", "--help").stdout
    for option in ("--closed-loop", "--env", "--tasks", "--latency-ms", "--blend", "--films", "--ablate", "--init"):
        assert option in shown
    for words, line in {
        ("--episodes", "3"): "--episodes belongs to --closed-loop. Add --closed-loop",
        ("--ablate", "vision", "--tasks", "pick"): "--tasks belongs to --closed-loop. Add --closed-loop",
        ("--robot", "panda"): "--robot belongs to --closed-loop or --ablate. Add --closed-loop",
    }.items():
        assert line in one_line_error(xvla("eval", "my_arm", *words))
    with pytest.raises(XvlaError, match="is no list of tasks; found pick,,stack"):
        names("pick,,stack")
