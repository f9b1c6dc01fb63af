"""Which cameras a robot has, where each sits, and which one is the main view.

In: the dataset's streams, their names, and (where there is a recording) their frames. Out: entries of `cameras:`, the
main view first. Names come from a table; image motion confirms or contradicts them.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from xvla_platform.data.reader import DatasetReader, FeatureInfo
from xvla_platform.errors import XvlaError
from xvla_platform.measure.guess import Guess
from xvla_platform.scaffold.combine import combine
from xvla_platform.scaffold.draft import Draft, nothing
from xvla_platform.scaffold.names import words

MOST_VIEWS = 3  # X-VLA's published bases read three; further ones are named in a note
NOT_COLOUR = re.compile(r"(^|_)(depth|segmentation|mask|normals?|pointcloud|ir|infrared|disparity)(_|$)")

# Tried in order: pattern on the stream's name, mount, confidence.
MOUNTS: tuple[tuple[str, str, float], ...] = (
    (r"(wrist|hand|gripper|eye_in_hand|in_hand|palm|tool|eef|end_effector|on_arm)", "wrist", 0.9),
    (r"(^|_)(chest|torso)(_|$)", "chest", 0.85),
    (r"(^|_)(head|ego|egocentric)(_|$)", "head", 0.8),
    (r"(front|top|overhead|agent_?view|exterior|external|third|side|static|primary|scene)", "fixed", 0.8),
    (r"(high|low|base|fixed|table|back|shoulder|global|overview|bird)", "fixed", 0.8),
)
# How fit a name is for the main view: the higher, the fitter.
MAIN_NAMES: tuple[tuple[str, float], ...] = (
    (r"(agent_?view|(^|_)front|primary|main|(^|_)top(_|$)|high|static|scene|third)", 3.0),
    (r"(exterior_(image_)?1|image_0|head)", 3.0),
    (r"(exterior|external|overhead|side|base|low|back|shoulder|global|ego)", 2.0),
    (r"(wrist|hand|gripper|tool)", 0.0),
)


def draft_cameras(
    features: Mapping[str, FeatureInfo],
    reader: DatasetReader | None,
    *,
    mounts: Mapping[str, Guess],
    main: Guess | None,
    chosen_main: str | None = None,
) -> tuple[list[Draft], list[str]]:
    """Entries of `cameras:` and notes.

    Args:
        mounts: What image motion says of each stream's mount.
        main: Which stream image motion takes for the main view.
        chosen_main: The user's own choice of main view, by key or name.
    """
    streams = [key for key, feature in features.items() if feature.is_camera]
    colour = [key for key in streams if not NOT_COLOUR.search(words(key))]
    notes = [f"stream '{key}' is not a colour camera and is left out" for key in streams if key not in colour]
    names = _labels(colour)
    if chosen_main is not None and chosen_main not in (*colour, *names.values()):
        raise XvlaError("the dataset has no such camera", field="--main-camera", found=chosen_main, allowed=colour)
    seated = {key: combine(_named_mount(key), mounts.get(key)) for key in colour}
    role = _main(colour, names, seated, main, chosen_main)
    ordered = sorted(colour, key=lambda key: (key != role.value, -_fitness(key)))
    for key in ordered[MOST_VIEWS:]:
        notes.append(f"camera '{key}' is left out: published bases read {MOST_VIEWS} views")
    out = []
    for number, key in enumerate(ordered[:MOST_VIEWS]):
        value = "main" if number == 0 else "auxiliary"
        reason = role.evidence if number == 0 else f"'{names[ordered[0]]}' is the main view: {role.evidence}"
        out.append(
            {
                "name": names[key],
                "role": Guess(value=value, confidence=role.confidence, evidence=reason),
                "mount": seated[key],
                "resolution": _resolution(key, features[key], reader),
                "key": key,
            }
        )
    return out, notes


def _named_mount(key: str) -> Guess:
    text = words(key)
    for pattern, mount, confidence in MOUNTS:
        match = re.search(pattern, _last(text))
        if match:
            return Guess(value=mount, confidence=confidence, evidence=f"named '{match[0].strip('_')}'")
    return nothing("the name does not tell")


def _main(
    keys: Sequence[str],
    names: Mapping[str, str],
    mounts: Mapping[str, Guess],
    measured: Guess | None,
    chosen: str | None,
) -> Guess:
    if chosen is not None:
        key = next(key for key in keys if chosen in (key, names[key]))
        return Guess(value=key, confidence=1.0, evidence="chosen by the user")
    if len(keys) < 2:
        return Guess(value=keys[0] if keys else None, confidence=1.0, evidence="the only camera")
    outside = [key for key in keys if mounts[key].value != "wrist"]
    if len(outside) == 1 and all(mounts[key].confidence >= 0.6 for key in keys if key not in outside):
        sure = min(mounts[key].confidence for key in keys if key not in outside)
        return combine(Guess(value=outside[0], confidence=sure, evidence="the only view not on a wrist"), measured)
    ranked = sorted(keys, key=_fitness, reverse=True)
    clear = _fitness(ranked[0]) > _fitness(ranked[1])
    by_name = Guess(
        value=ranked[0],
        confidence=0.75 if clear else 0.4,
        evidence=f"by its name among {', '.join(names[key] for key in ranked)}",
    )
    return combine(by_name, measured)


def _fitness(key: str) -> float:
    text = _last(words(key))
    return next((score for pattern, score in MAIN_NAMES if re.search(pattern, text)), 1.0)


def _last(text: str) -> str:
    """The stream's own name, without the words that every stream's key begins with."""
    return re.sub(r"^(steps_|obs_|observations?_|images?_|videos?_|rgb_)+(?=.)", "", text)


def _labels(keys: Sequence[str]) -> dict[str, str]:
    """A short name for each stream, unique and fit for a declaration."""
    out: dict[str, str] = {}
    for key in keys:
        parts = [part for part in _last(words(key)).split("_") if part]
        text = "_".join(part for part in parts if part not in ("rgb", "image", "images", "color", "cam", "camera"))
        text = re.sub(r"_(?=\d)", "", text) or "camera"
        text = text if text[0].isalpha() else f"camera{text}"
        label, number = text, 2
        while label in out.values():
            label, number = f"{text}{number}", number + 1
        out[key] = label
    return out


def _resolution(key: str, feature: FeatureInfo, reader: DatasetReader | None) -> Any:
    height, width = feature.image_size
    if height > 0 and width > 0:
        return Guess(value=[height, width], confidence=0.99, evidence="declared by the dataset")
    if reader is not None:
        try:
            frame = reader.frames(reader.episodes[0].index, key, [0])[0]
        except XvlaError as error:
            return nothing(f"the first frame cannot be read: {error.message}")
        return Guess(value=list(frame.shape[:2]), confidence=0.99, evidence="size of the first frame")
    return nothing("the dataset does not say")
