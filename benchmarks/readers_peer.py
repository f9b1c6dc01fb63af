"""The LeRobot library's side of `readers.py`, run by a Python in which `lerobot` is installed.

`write FOLDER EPISODES LENGTH SIZE` records a dataset with the library's own writer. `read FOLDER` opens it and then
answers each line `ORDER.json OUT.npz` of its input: it reads those frames by their index, with every camera, state and
action, writes what it read and how long it took, and prints `done`.
Needs nothing but `lerobot` and its dependencies; works with 0.3 (datasets 2.1) and 0.4 to 0.6 (datasets 3.0).
"""

import json
import sys
import time
from importlib.metadata import version

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

CAMERAS = ("observation.images.front", "observation.images.wrist")
NAMES = ["x", "y", "z", "roll", "pitch", "yaw", "gripper"]
FPS = 20


def picture(size: int, episode: int, frame: int, camera: int) -> np.ndarray:
    """A drifting pattern with edges and a little noise, RGB uint8 [size, size, 3]."""
    rng = np.random.default_rng([episode, frame, camera])
    y, x = np.mgrid[:size, :size] / size
    phase = 0.05 * frame + episode + 2 * camera
    planes = [np.sin(9 * x + phase), np.cos(7 * y - phase), np.sign(np.sin(12 * (x + y) + phase))]
    return np.clip(127 + 90 * np.stack(planes, axis=-1) + rng.normal(0, 4, (size, size, 3)), 0, 255).astype(np.uint8)


def write(folder: str, episodes: int, length: int, size: int) -> None:
    camera = {"dtype": "video", "shape": (size, size, 3), "names": ["height", "width", "channels"]}
    vector = {"dtype": "float32", "shape": (7,), "names": NAMES}
    features = {"observation.state": vector, "action": vector, **dict.fromkeys(CAMERAS, camera)}
    dataset = LeRobotDataset.create("bench/set", FPS, features, root=folder, robot_type="bench")
    named_task = "task" in LeRobotDataset.add_frame.__code__.co_varnames[:4]  # 0.3 takes the task beside the frame
    for episode in range(episodes):
        for frame in range(length):
            motion = np.sin(0.03 * frame * np.arange(1, 8) + episode).astype(np.float32)
            row = {"observation.state": motion, "action": np.roll(motion, 1)}
            row |= {key: picture(size, episode, frame, number) for number, key in enumerate(CAMERAS)}
            if named_task:
                dataset.add_frame(row, task="lift the cube")
            else:
                dataset.add_frame({**row, "task": "lift the cube"})
        dataset.save_episode()
    if hasattr(dataset, "finalize"):
        dataset.finalize()


def read(folder: str) -> None:
    dataset = LeRobotDataset("bench/set", root=folder)
    dataset[0]  # decoders and tables are open before the clock starts
    about = {"lerobot": version("lerobot"), "torch": version("torch")}
    for line in sys.stdin:
        order, out = line.split()
        with open(order) as stream:
            wanted = json.load(stream)
        began = time.perf_counter()
        kept = [dataset[index] for index in wanted]
        seconds = time.perf_counter() - began
        arrays = {key: np.stack([row[key].numpy() for row in kept]) for key in ("observation.state", "action")}
        for key in (key for key in kept[0] if key.startswith("observation.images.")):
            frames = np.stack([np.asarray(row[key]) for row in kept])
            arrays[key] = np.rint(np.moveaxis(frames, 1, 3) * 255).astype(np.uint8)
        np.savez(out, seconds=seconds, about=json.dumps(about), **arrays)
        print("done", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(sys.argv[2], *(int(value) for value in sys.argv[3:6]))
    else:
        read(sys.argv[2])
