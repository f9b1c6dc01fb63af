"""Where a robot's recordings lie below its plugin: `xvla record` writes there, recipes and studies name it."""

from pathlib import Path

DEMONSTRATIONS, STILL_SCENES, RIGS = "demonstrations", "still_scenes", "rigs"


def dataset_folder(name: str, rig: int) -> Path:
    """The folder of a dataset that was recorded with the robot's own cameras (rig 0) or with a drawn rig's."""
    return Path(name) if rig == 0 else Path(RIGS, str(rig), name)


def rig_of(data: Path) -> str | None:
    """The number of the rig whose dataset lies in a folder, as text; None for the robot's own cameras."""
    return data.parts[1] if data.parts[:1] == (RIGS,) and len(data.parts) > 1 else None
