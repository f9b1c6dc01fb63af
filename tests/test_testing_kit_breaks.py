"""The conformance kit: each promise can be broken, and who breaks one is told which."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import REPOSITORY, write_plugin
from data_helpers import FRONT, WRIST, write_dataset
from kit_helpers import storage_named

from xvla_platform.data.lerobot import LEROBOT
from xvla_platform.data.reader import DatasetReader, ReaderFactory
from xvla_platform.errors import XvlaError
from xvla_platform.platform.hookspecs import Factory, PushReceipt, PushRequest, Storage, load_target
from xvla_platform.testing import (
    PROMISES,
    NotConformantError,
    assert_plan_conformant,
    assert_plugin_conformant,
    assert_reader_conformant,
    assert_storage_conformant,
)
from xvla_platform.testing.faults.views import View


class Broken(View):
    """A reader that keeps its promises until a test gives it another method."""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("kit") / "data")


def _breaks(recorded: Path, change: Callable[[Any], None]) -> str:
    """The code that the kit gives for a LeRobot reader after `change`."""

    def open_changed(place: Path) -> DatasetReader:
        view = Broken(LEROBOT.open(place))
        change(view)
        return view

    with pytest.raises(NotConformantError) as caught:
        assert_reader_conformant(replace(LEROBOT, open=open_changed), recorded)
    assert "\n" not in str(caught.value)
    assert PROMISES[caught.value.code] in str(caught.value)
    return caught.value.code


def _method(name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Callable[[Any], None]:
    def change(view: Any) -> None:
        setattr(view, name, make(getattr(view, name)))

    return change


def _set(name: str, make: Callable[[Any], Any]) -> Callable[[Any], None]:
    def change(view: Any) -> None:
        setattr(view, name, make(getattr(view, name)))

    return change


def _sorted_frames(read: Callable[..., Any]) -> Callable[..., Any]:
    return lambda episode, key, indices: read(episode, key, sorted(np.asarray(indices).tolist()))


def _blurred_in_batches(read: Callable[..., Any]) -> Callable[..., Any]:
    def frames(episode: int, key: str, indices: Sequence[int]) -> Any:
        images = read(episode, key, indices)
        return images if len(images) > 1 else images // 2

    return frames


def _cached(read: Callable[..., Any]) -> Callable[..., Any]:
    kept: dict[Any, Any] = {}

    def columns(episode: int, keys: Sequence[str]) -> Any:
        for key in keys:
            if (episode, key) not in kept:
                kept[episode, key] = read(episode, [key])[key]
        return {key: kept[episode, key] for key in keys}

    return columns


def _clipped_episode(read: Callable[..., Any]) -> Callable[..., Any]:
    return lambda episode, *rest: read(min(max(episode, 0), 2), *rest)


def _counted(read: Callable[..., Any]) -> Callable[..., Any]:
    calls: list[int] = []

    def fingerprint() -> str:
        calls.append(1)
        return f"{len(calls):064x}"

    return fingerprint


def _by_key(read: Callable[..., Any]) -> Callable[..., Any]:
    names = {key: key for key in (FRONT, WRIST)}
    return lambda episode, key, indices: read(episode, names[key], indices)


BREAKS: dict[str, tuple[str, Callable[[Any], None]]] = {
    "frames counted wrongly": ("KIT202", _set("info", lambda info: replace(info, frames=7))),
    "episodes numbered from one": (
        "KIT203",
        _set("episodes", lambda episodes: [replace(episode, index=episode.index + 1) for episode in episodes]),
    ),
    "no instruction": (
        "KIT203",
        _set("episodes", lambda episodes: [replace(episode, instruction=None) for episode in episodes]),
    ),
    "float32": (
        "KIT204",
        _method("columns", lambda read: lambda e, k: {n: v.astype("float32") for n, v in read(e, k).items()}),
    ),
    "a column too many": (
        "KIT204",
        _method("columns", lambda read: lambda e, k: read(e, [*k, "timestamp"])),
    ),
    "time goes back": ("KIT205", _method("timestamps", lambda read: lambda e: read(e)[::-1].copy())),
    "time starts late": ("KIT205", _method("timestamps", lambda read: lambda e: read(e) + 3.0)),
    "channels first": ("KIT206", _method("frames", lambda read: lambda e, k, i: read(e, k, i).transpose(0, 3, 1, 2))),
    "floats": ("KIT206", _method("frames", lambda read: lambda e, k, i: read(e, k, i) / 255.0)),
    "sorted frames": ("KIT207", _method("frames", _sorted_frames)),
    "another image alone": ("KIT208", _method("frames", _blurred_in_batches)),
    "shared arrays": ("KIT209", _method("columns", _cached)),
    "counted fingerprint": ("KIT210", _method("fingerprint", _counted)),
    "a short fingerprint": ("KIT210", _method("fingerprint", lambda read: lambda: read()[:40])),
    "the nearest episode": ("KIT212", _method("columns", _clipped_episode)),
    "a KeyError": ("KIT212", _method("frames", _by_key)),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_reader_is_told_which_promise(recorded: Path, name: str) -> None:
    code, change = BREAKS[name]
    assert _breaks(recorded, change) == code


def test_a_reader_that_takes_anything(recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(NotConformantError, match=r"KIT201.*says yes to an empty folder"):
        assert_reader_conformant(replace(LEROBOT, detects=lambda place: True), recorded)
    with pytest.raises(NotConformantError, match=r"KIT201.*says no to the place"):
        assert_reader_conformant(LEROBOT, tmp_path)


def test_a_reader_that_cannot_be_pickled(recorded: Path) -> None:
    def open_with_handle(place: Path) -> DatasetReader:
        view: Any = Broken(LEROBOT.open(place))
        view.handle = lambda: None
        return view  # type: ignore[no-any-return]

    with pytest.raises(NotConformantError, match="KIT211"):
        assert_reader_conformant(replace(LEROBOT, open=open_with_handle), recorded)


def test_a_reader_that_writes(recorded: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(recorded, tmp_path / "set"))

    def open_and_note(place: Path) -> DatasetReader:
        (place / "seen.log").write_text("opened")
        return LEROBOT.open(place)

    with pytest.raises(NotConformantError, match="KIT213"):
        assert_reader_conformant(ReaderFactory(name="noting", open=open_and_note, detects=LEROBOT.detects), folder)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda robot: robot.pop("control_hz"), "KIT101"),
        (lambda robot: robot.update(control_hz="???"), "KIT101"),
        (lambda robot: robot.update(name="another"), "KIT102"),
        (lambda robot: robot["action"].update(space="joint"), "KIT104"),
        (lambda robot: robot["action"]["fields"].pop(0), "KIT104"),
    ],
)
def test_a_broken_plugin_is_told_which_promise(
    robot: dict[str, Any], tmp_path: Path, change: Callable[[dict[str, Any]], Any], code: str
) -> None:
    change(robot)
    folder = write_plugin(tmp_path / "my_arm", robot)
    (folder / "README.md").write_text("A robot of these tests, with an arm, a gripper and two cameras.\n")
    with pytest.raises(NotConformantError) as caught:
        assert_plugin_conformant(folder, space=None if robot.get("action", {}).get("space") else "ee6d")
    assert caught.value.code == code


def test_a_plugin_says_what_it_is_and_its_hooks_exist(robot: dict[str, Any], tmp_path: Path) -> None:
    folder = write_plugin(tmp_path / "my_arm", robot)
    with pytest.raises(NotConformantError, match=r"KIT103.*no README.md"):
        assert_plugin_conformant(folder)
    (folder / "README.md").write_text("A robot of these tests, with an arm, a gripper and two cameras.\n")
    assert_plugin_conformant(folder)
    with pytest.raises(NotConformantError, match=r"KIT108.*dataset folder not found"):
        assert_plugin_conformant(folder, data=True)
    (folder / "plugin.py").write_text("from xvla_platform import hookimpl\n@hookimpl\ndef step_done():\n    pass\n")
    with pytest.raises(NotConformantError, match=r"KIT107.*there is no hook 'step_done'"):
        assert_plugin_conformant(folder)


def _broken_storage(how: str) -> Storage:
    folder = storage_named("dir")
    push, pull = load_target(folder.push), load_target(folder.pull)

    def bad_push(request: PushRequest) -> Any:
        if how == "silent":
            push(request)
            return None
        if how == "overwrites" and (Path(request.location) / request.name).exists():
            receipt: PushReceipt = push(request)
            if not receipt.already_there:
                place = Path(request.location) / request.name
                shutil.rmtree(place / "v1")
                shutil.copytree(place / "v2", place / "v1")
            return receipt
        receipt = push(request)
        if how == "forgets":
            return replace(receipt, already_there=False)
        if how == "marks":
            (request.folder / "pushed.txt").write_text("yes")
        return receipt

    def bad_pull(location: str, revision: str | None, destination: Path) -> Any:
        if how == "silent about nothing" and not Path(location).exists():
            return None
        got = pull(location, revision, destination)
        if how == "loses":
            (destination / "README.md").unlink()
        return got

    return Storage(name="dir", push=bad_push, pull=bad_pull)


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("silent", "KIT301"),
        ("loses", "KIT302"),
        ("forgets", "KIT303"),
        ("overwrites", "KIT304"),
        ("silent about nothing", "KIT305"),
        ("marks", "KIT306"),
    ],
)
def test_a_broken_storage_is_told_which_promise(tmp_path: Path, how: str, code: str) -> None:
    (tmp_path / "share").mkdir()
    with pytest.raises(NotConformantError) as caught:
        assert_storage_conformant(_broken_storage(how), str(tmp_path / "share"))
    assert caught.value.code == code


def test_a_broken_plan_is_told_which_promise() -> None:
    from xvla_platform.adapt.recipe import LORA, PROMPT, prompt_only
    from xvla_platform.specs.plan import AdaptationPlan

    def aimless() -> AdaptationPlan:
        return AdaptationPlan(name="aimless", stages=(LORA.model_copy(update={"lr": {"lora": 1e-4}}),))

    seeds = iter(range(100))

    def restless() -> AdaptationPlan:
        return AdaptationPlan(name="restless", seed=next(seeds), stages=(PROMPT,))

    for target, code in ((lambda: {"stages": []}, "KIT401"), (restless, "KIT402"), (aimless, "KIT403")):
        with pytest.raises(NotConformantError) as caught:
            assert_plan_conformant(Factory(name="bad", target=target))
        assert caught.value.code == code
    assert assert_plan_conformant(Factory(name="good", target=prompt_only)).name == "prompt-none"


def test_promises_are_named_once_and_used() -> None:
    used = "".join(path.read_text() for path in (REPOSITORY / "xvla_platform" / "testing").glob("*.py"))
    assert [code for code in PROMISES if f'"{code}"' not in used.replace(f'    "{code}": ', "")] == []
    assert issubclass(NotConformantError, XvlaError)
