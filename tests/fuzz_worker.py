"""Runs damaged plugins and datasets through the real code and says what came of each, one JSON line a case.

    python tests/fuzz_worker.py plugins|datasets FIRST COUNT FOLDER

In a process of its own, so that a crash of the interpreter or a hang is seen from outside. `refused` is an XvlaError
of one line; `fine` is a registered robot; anything else is `crash`, with where it happened.
"""

import json
import random
import resource
import shutil
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from conftest import ROBOT, write_base
from data_helpers import edit_json, write_dataset
from formats import FORMATS, write_aloha, write_rlds, write_robomimic, write_xvla_meta
from fuzz_mutations import damage_folder, damage_yaml
from lerobot_v2_writer import write_groot, write_lerobot21

from xvla_platform.errors import XvlaError

LENGTHS = (14, 12, 15, 13, 12)
MEMORY = 6 * 2**30
FULL: dict[str, Any] = {
    **ROBOT,
    "dataset": {
        "format": "lerobot",
        "path": "demonstrations",
        "held_out": 0.4,
        "tail": "shrink",
        "tail_margin": 1,
        "skip_idle": {"position_m": 1e-5},
    },
    "prompt": {"init": "mean"},
    "frame_changes": [{"arm": "left", "base": {"position_m": [0.1, 0, 0]}, "tool": {"quaternion_xyzw": [1, 0, 0, 0]}}],
}


def _lerobot20(place: Path) -> Path:
    folder = write_lerobot21(place, LENGTHS)
    edit_json(folder / "meta" / "info.json", codebase_version="v2.0")
    return folder


WRITERS: dict[str, Callable[[Path], Path]] = {
    "lerobot30": lambda place: write_dataset(place, LENGTHS),
    "lerobot21": lambda place: write_lerobot21(place, LENGTHS),
    "lerobot20": _lerobot20,
    "groot": lambda place: write_groot(place, LENGTHS),
    "aloha": lambda place: write_aloha(place, LENGTHS),
    "aloha_jpeg": lambda place: write_aloha(place, LENGTHS, encoding="jpeg"),
    "robomimic": lambda place: write_robomimic(place.with_suffix(".hdf5"), LENGTHS),
    "rlds": lambda place: write_rlds(place, LENGTHS),
    "xvla_meta": lambda place: write_xvla_meta(place, LENGTHS),
}


class Bench:
    """A workspace with a base and one small recording in every format."""

    def __init__(self, folder: Path) -> None:
        from xvla_platform.check.runner import catalogue
        from xvla_platform.platform.bases import resolve_base
        from xvla_platform.platform.workspace import CONFIG_NAME, CONFIG_TEXT, Workspace

        self.root = folder
        (folder / "workspace").mkdir(parents=True)
        (folder / "workspace" / CONFIG_NAME).write_text(CONFIG_TEXT)
        self.workspace = Workspace(folder / "workspace")
        self.base = resolve_base(str(write_base(folder / "base")))
        self.codes = tuple(catalogue())  # what is found in grey pictures is no matter here
        self.plugin = folder / "workspace" / "plugins" / "my_arm"
        self.plugin.mkdir(parents=True)

    def pristine(self, name: str) -> Path:
        """The recording in the format of that name, written once."""
        place = self.root / "pristine" / name
        place.parent.mkdir(exist_ok=True)
        found = [path for path in place.parent.glob(f"{name}*") if path.stem == name]
        if found:
            return found[0]
        return WRITERS[name](place)

    def register(self) -> str:
        """`add-embodiment` on the plugin: `fine` or `refused`; whatever else it raises is a fault of ours."""
        from xvla_platform.platform.embodiments import add_embodiment
        from xvla_platform.platform.plugins import load_plugin

        embodiments = self.workspace.embodiments
        try:
            add_embodiment(self.workspace, load_plugin(self.plugin), base=self.base, accept=self.codes)
        except XvlaError as error:
            if "\n" in str(error) or len(str(error)) > 4000:
                raise AssertionError(f"the error is not one short line: {str(error)[:200]!r}") from None
            left = [path.name for path in embodiments.rglob("*") if path.is_file() and ".locks" not in path.parts]
            if left:
                raise AssertionError(f"refused, and yet wrote {left}") from None
            return f"refused: {error}"
        (written,) = [path for path in embodiments.iterdir() if not path.name.startswith(".")]
        names = {path.name for path in written.iterdir()}
        if not {"cameras.png", "check.json", "embodiment.yaml", "stats.json"} <= names:
            raise AssertionError(f"wrote only {sorted(names)}")
        shutil.rmtree(written)
        return "fine"


def plugin_case(bench: Bench, seed: int) -> tuple[str, str]:
    """A damaged plugin.yaml over a sound recording."""
    rng = random.Random(f"plugin {seed}")
    data = bench.plugin / "demonstrations"
    if not data.exists():
        write_dataset(data, LENGTHS)
    text = yaml.safe_dump(FULL if rng.random() < 0.5 else ROBOT, sort_keys=False)
    (bench.plugin / "plugin.yaml").write_bytes(damage_yaml(text, rng))
    return bench.register(), "plugin.yaml"


def dataset_case(bench: Bench, seed: int) -> tuple[str, str]:
    """A sound plugin over a damaged recording of any format; what can still be read is read whole."""
    rng = random.Random(f"dataset {seed}")
    name = list(WRITERS)[seed % len(WRITERS)]
    source = bench.pristine(name)
    for old in bench.plugin.iterdir():
        shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
    place = bench.plugin / source.relative_to(bench.root / "pristine").parts[0]
    whole = bench.root / "pristine" / place.name
    if whole.is_dir():
        shutil.copytree(whole, place)
    else:
        shutil.copy(whole, place)
    format = next(format for format in FORMATS if format.name in (name, "lerobot21" if name == "lerobot20" else name))
    spec = format.spec().model_dump(mode="json", exclude_none=True)
    spec["name"] = "my_arm"
    del spec["dataset"]["instruction"]  # each of these recordings has its own
    spec["dataset"]["path"] = source.relative_to(bench.root / "pristine").as_posix()
    (bench.plugin / "plugin.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    done = damage_folder(place, rng)
    outcome = bench.register()
    _read_all(bench.plugin)
    return outcome, f"{name}: {done}"


def _read_all(plugin: Path) -> None:
    """Every number and frame that the reader promises; what it cannot give is an `XvlaError`."""
    from xvla_platform.platform.embodiments import open_data
    from xvla_platform.platform.plugins import load_plugin

    try:
        reader = open_data(load_plugin(plugin).spec, plugin)
    except XvlaError:
        return
    for episode in reader.episodes[:5]:
        for key, feature in reader.info.features.items():
            try:
                if feature.is_camera:
                    reader.frames(episode.index, key, range(min(episode.length, 50)))
                else:
                    reader.columns(episode.index, [key])
            except XvlaError:
                continue
        try:
            reader.timestamps(episode.index)
        except XvlaError:
            continue
    try:
        reader.fingerprint()
    except XvlaError:
        return


def main(kind: str, first: int, count: int, folder: Path) -> None:
    """Run the cases; a line is written before each (so that one that never ends is known) and after it."""
    import huggingface_hub.constants

    huggingface_hub.constants.HF_HUB_OFFLINE = True
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    bench = Bench(folder)
    case = {"plugins": plugin_case, "datasets": dataset_case}[kind]
    for seed in range(first, first + count):
        _say({"begins": seed})
        start = time.monotonic()
        try:
            outcome, about = case(bench, seed)
            outcome, _, message = outcome.partition(": ")
            line = {"seed": seed, "outcome": outcome, "about": about, "error": message[-300:]}
        except Exception as error:  # what is looked for
            frames = traceback.extract_tb(error.__traceback__)
            where = [f"{Path(f.filename).name}:{f.lineno}" for f in frames if "xvla_platform" in f.filename][-3:]
            text = f"{type(error).__name__}: {str(error)[:200]}"
            line = {"seed": seed, "outcome": "crash", "error": text, "where": where}
            shutil.rmtree(bench.workspace.embodiments, ignore_errors=True)
        _say({**line, "seconds": round(time.monotonic() - start, 2)})


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
