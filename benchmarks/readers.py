"""Our LeRobot reader against the LeRobot library: the same data, the same samples, in one run.

    python benchmarks/readers.py --peer-python /path/to/python/with/lerobot

The peer records a dataset with its own writer (3.0 or 2.1, as its version does), or `--data` names one. Both read the
same samples (every camera, state, action of one frame) in order and at random, in turns. Numbers must be equal and
images within `--tolerance` grey levels; the exit code is 1 if they are not, or if we are slower in either order.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from xvla_platform.data.lerobot import open_lerobot
from xvla_platform.data.reader import DatasetReader

PEER = Path(__file__).with_name("readers_peer.py")
Peer = Any  # a `subprocess.Popen` with text pipes
COLUMNS = ("observation.state", "action")


def main() -> int:
    options = parse()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.data
        if folder is None:
            folder = Path(scratch) / "set"
            sizes = (options.episodes, options.length, options.size)
            with peer(options.peer_python, "write", folder, *sizes):
                pass
        reader = open_lerobot(folder)
        total = reader.info.frames
        rng = np.random.default_rng(0)
        start = int(rng.integers(max(total - options.samples, 1)))
        orders = {
            "in order": [(start + step) % total for step in range(options.samples)],
            "at random": rng.integers(total, size=options.samples).tolist(),
        }
        with peer(options.peer_python, "read", folder) as other:
            out = Path(scratch) / "peer.npz"
            results = {name: compare(folder, order, options, other, out) for name, order in orders.items()}
    report = {"dataset": describe(reader, folder if options.data else None), "machine": machine(), **results}
    print(json.dumps(report, indent=2))
    return 0 if all(good(result, options.tolerance) for result in results.values()) else 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", required=True, help="a Python in which `lerobot` is installed")
    parser.add_argument("--data", type=Path, help="an existing LeRobot dataset; the peer records one otherwise")
    parser.add_argument("--episodes", type=int, default=8)
    parser.add_argument("--length", type=int, default=150, help="frames an episode")
    parser.add_argument("--size", type=int, default=224, help="pixels of the square cameras")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3, help="the median round counts")
    parser.add_argument("--tolerance", type=float, default=2.0, help="grey levels, largest difference of a pixel")
    return parser.parse_args()


def compare(folder: Path, order: list[int], options: argparse.Namespace, other: Peer, out: Path) -> dict[str, Any]:
    """Both read `order` in turns; what they read is compared, and how long a sample took them."""
    order_file = out.with_suffix(".json")
    order_file.write_text(json.dumps(order))
    ours, theirs = [], []
    for _ in range(options.rounds):
        seconds, mine = read_ours(folder, order)
        ours.append(seconds / len(order))
        ask(other, f"{order_file} {out}")
        with np.load(out) as found:
            read = {key: found[key] for key in found.files}
        theirs.append(float(read.pop("seconds")) / len(order))
    about = json.loads(str(read.pop("about")))
    cameras = [key for key in read if key not in COLUMNS]
    apart = [np.abs(mine[key].astype(int) - read[key].astype(int)) for key in cameras]
    return {
        "ours_ms": round(1000 * float(np.median(ours)), 3),
        "peer_ms": round(1000 * float(np.median(theirs)), 3),
        "ratio": round(float(np.median(theirs) / np.median(ours)), 2),
        "numbers_equal": all(np.array_equal(mine[key].astype(np.float32), read[key]) for key in COLUMNS),
        "largest_pixel_difference": int(max(values.max() for values in apart)),
        "mean_pixel_difference": round(float(np.mean([values.mean() for values in apart])), 4),
        "peer": about,
    }


def read_ours(folder: Path, order: list[int]) -> tuple[float, dict[str, Any]]:
    """Seconds for all samples of `order`, one by one, and what was read."""
    reader = open_lerobot(folder)
    cameras = [key for key, feature in reader.info.features.items() if feature.is_camera]
    ends = np.cumsum([episode.length for episode in reader.episodes])
    sample(reader, cameras, ends, 0)  # decoders and tables are open before the clock starts
    began = time.perf_counter()
    rows = [sample(reader, cameras, ends, index) for index in order]
    seconds = time.perf_counter() - began
    return seconds, {key: np.stack([row[key] for row in rows]) for key in (*COLUMNS, *cameras)}


def sample(reader: DatasetReader, cameras: list[str], ends: Any, index: int) -> dict[str, Any]:
    episode = int(np.searchsorted(ends, index, side="right"))
    frame = index - int(ends[episode]) + reader.episodes[episode].length
    row: dict[str, Any] = {key: values[frame] for key, values in reader.columns(episode, COLUMNS).items()}
    for key in cameras:
        row[key] = reader.frames(episode, key, [frame])[0]
    return row


@contextmanager
def peer(python: str, *arguments: object) -> Iterator[Peer]:
    """The peer's process; it has done its work when the block ends."""
    command = [python, str(PEER), *map(str, arguments)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryFile("w+") as complaints:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": complaints}
        with subprocess.Popen(command, text=True, env=environment, **pipes) as process:  # type: ignore[call-overload]
            yield process
            process.stdin.close()
            process.stdout.read()
        if process.returncode:
            complaints.seek(0)
            sys.exit(f"the peer failed: {' '.join(command)}\n{complaints.read()[-3000:]}")


def ask(process: Peer, line: str) -> None:
    """One request; other output of the library is passed over."""
    process.stdin.write(line + "\n")
    process.stdin.flush()
    while answer := process.stdout.readline():
        if answer.strip() == "done":
            return
    sys.exit("the peer stopped; run its script by hand to see why")


def good(result: dict[str, Any], tolerance: float) -> bool:
    return bool(result["numbers_equal"] and result["largest_pixel_difference"] <= tolerance and result["ratio"] > 1)


def describe(reader: DatasetReader, folder: Path | None) -> dict[str, Any]:
    info = json.loads((reader.root / "meta/info.json").read_text()) if reader.root.exists() else {}
    cameras = [feature.image_size for feature in reader.info.features.values() if feature.is_camera]
    video = next((f.get("info") or {} for f in info.get("features", {}).values() if f["dtype"] == "video"), {})
    return {
        "recorded_by": "the peer" if folder is None else str(folder),
        "version": info.get("codebase_version"),
        "codec": video.get("video.codec"),
        "cameras": cameras,
        "episodes": reader.info.episodes,
        "frames": reader.info.frames,
    }


def machine() -> dict[str, Any]:
    import av

    return {"cores": os.cpu_count(), "python": platform.python_version(), "av": av.__version__}


if __name__ == "__main__":
    sys.exit(main())
