"""XV3xx: do the cameras show what is declared: the right view, alive, the right way round, at the right time?

The footage is decoded once for all rules. What is measured from image motion needs an arm that moves and is
seen; where it is not, nothing is concluded, and XV312 says so.
"""

from collections.abc import Iterator

import numpy as np

from xvla_platform.check.camera_rules import RULES
from xvla_platform.check.common import counted, severity_of
from xvla_platform.check.findings import CheckContext, Finding, Severity
from xvla_platform.measure.cameras import FOLLOWS, Seen, delay, flip, mount, watch
from xvla_platform.measure.cameras_colour import channels
from xvla_platform.measure.cameras_episodes import mirrored_episodes, shifted_episodes
from xvla_platform.measure.cameras_footage import Footage, hands_of, look
from xvla_platform.measure.cameras_stills import StillFault, exchanged, same_streams, still_faults
from xvla_platform.measure.guess import LIKELY, SURE, Guess
from xvla_platform.specs.embodiment import CameraSpec

STILL_CODES = {
    "dark": ("XV301", "the image is black (mean {found:.0f} of 255, {typical:.0f} in the other frames)"),
    "uniform": ("XV302", "the image is one colour (it varies by {found:.1f} of 255 grey levels)"),
    "frozen": (
        "XV303",
        "the image stays the same while the arm moves ({found:.2f} grey levels, usually {typical:.1f})",
    ),
    "glare": ("XV310", "{found:.0%} of the image is white"),
    "repeated": ("XV311", "consecutive frames are one image while the arm moves (usually {typical:.1f} grey levels)"),
    "blurred": ("XV313", "fine detail is at {ratio:.0%} of this camera's usual"),
}
FEW_FRAMES = 0.34  # share of an episode's looked-at frames below which a fault of a frame is a drop-out
LATE_FRAMES = 2
MIN_GROUP = 3  # episodes that deviate alike before image motion of single episodes is believed


def check_cameras(context: CheckContext) -> Iterator[Finding]:
    """Every rule of this module, from one decoding."""
    features = context.reader.info.features
    cameras = [camera for camera in context.spec.cameras if camera.key in features and features[camera.key].is_camera]
    hands = hands_of(context.recording)
    if not cameras or not hands:
        return
    footage = look(context.reader, [camera.key for camera in cameras], hands, quick=context.quick)
    cameras = [camera for camera in cameras if footage.streams[camera.key].stills]
    footage = Footage(
        streams={camera.key: footage.streams[camera.key] for camera in cameras},
        hands=hands,
        instructions=footage.instructions,
    )
    seen = watch(footage)
    facts = context.facts.setdefault("cameras", {})
    dead: set[str] = set()
    explained: dict[str, set[int]] = {camera.name: set() for camera in cameras}  # episodes with a cause of their own
    for camera in cameras:
        for fault in still_faults(footage, camera.key):
            yield _still(camera, fault)
            if fault.kind in ("dark", "uniform", "frozen"):
                explained[camera.name] |= set(fault.episodes)
            if fault.kind in ("dark", "uniform", "frozen") and len(fault.episodes) > fault.of / 2:
                dead.add(camera.name)
    for finding in (*_duplicates(footage, cameras), *_exchanges(footage, cameras)):
        yield finding
        for name in (finding.numbers["other"], str(finding.field).removeprefix("cameras.")):
            explained[name] |= set(finding.episodes)
        share = len(finding.episodes) / finding.numbers["of"] if finding.episodes else 1.0
        if finding.code == "XV304" and share > 0.5:
            dead.add(str(finding.field).removeprefix("cameras."))  # a copy says nothing about the camera it stands for
    alive = [camera for camera in cameras if camera.name not in dead]
    places = {camera.name: mount(seen[camera.key]) for camera in alive}
    for camera in alive:
        facts[camera.name] = {"mount": places[camera.name].value, "confidence": places[camera.name].confidence}
    yield from _mounts(alive, places)
    guesses = channels(footage)
    for camera in alive:
        one = seen[camera.key]
        if not one.known:
            yield _unrelated(camera, one)
            continue
        yield from _mirror(camera, one, facts[camera.name], explained[camera.name])
        yield from _delays(context, camera, one, facts[camera.name], explained[camera.name])
        yield from _colours(camera, guesses[camera.key])


CHECKS = (check_cameras,)
__all__ = ["CHECKS", "RULES", "check_cameras"]


def _still(camera: CameraSpec, fault: StillFault) -> Finding:
    code, words = STILL_CODES[fault.kind]
    ratio = fault.found / fault.typical if fault.typical else 0.0
    measured = words.format(found=fault.found, typical=fault.typical, ratio=ratio)
    share = float(np.mean(list(fault.episodes.values())))
    episodes = tuple(sorted(fault.episodes))
    everywhere = len(episodes) == fault.of
    where = f"all {fault.of} episodes" if everywhere else counted(episodes, fault.of)
    severity: Severity = next(rule.severity for rule in RULES if rule.code == code)
    if severity == "error" and share < FEW_FRAMES and fault.kind != "frozen":
        severity = "warning"
    return Finding(
        code=code,
        severity=severity,
        field=f"cameras.{camera.name}",
        measured=f"{measured} in {where}, there in {share:.0%} of the frames looked at",
        numbers={"share_of_frames": share, "found": fault.found, "typical": fault.typical, "of": fault.of},
        episodes=() if everywhere else episodes,
    )


def _duplicates(footage: Footage, cameras: list[CameraSpec]) -> Iterator[Finding]:
    names = {camera.key: camera.name for camera in cameras}
    for first, second, same, of in same_streams(footage):
        episodes = tuple(sorted(same))
        where = f"all {of} episodes" if len(same) == of else counted(episodes, of)
        ratio = float(np.median(list(same.values())))
        yield Finding(
            code="XV304",
            severity="error",
            field=f"cameras.{names[second]}",
            measured=f"its images are those of '{names[first]}' in {where} (they differ by {ratio:.1%} of what one "
            "camera's own moments differ)",
            numbers={"other": names[first], "ratio": ratio, "of": of},
            episodes=() if len(same) == of else episodes,
        )


def _exchanges(footage: Footage, cameras: list[CameraSpec]) -> Iterator[Finding]:
    for place, first in enumerate(cameras):
        for second in cameras[place + 1 :]:
            found, of = exchanged(footage, first.key, second.key)
            if found:
                episodes = tuple(sorted(found))
                yield Finding(
                    code="XV306",
                    severity="error",
                    field=f"cameras.{first.name}",
                    measured=f"'{first.name}' and '{second.name}' are exchanged in {counted(episodes, of)}: exchanged, "
                    f"their mean images are {np.median(list(found.values())):.0%} nearer to the other episodes'",
                    numbers={"other": second.name, "of": of, "nearer": found},
                    episodes=episodes,
                )


def _mounts(cameras: list[CameraSpec], places: dict[str, Guess]) -> Iterator[Finding]:
    """Declared against measured mounts; two that are wrong each way are one exchange."""
    wrong = [camera for camera in cameras if _contradicts(camera, places[camera.name])]
    for camera in wrong:
        guess = places[camera.name]
        severity = severity_of(guess.confidence)
        if severity is None:
            continue
        partner = next(
            (other for other in wrong if other is not camera and places[other.name].value != guess.value), None
        )
        fix = f"write `mount: {guess.value}` for camera '{camera.name}'"
        if partner is not None:
            fix = f"exchange the keys: `{camera.name}` gets `{partner.key}`, `{partner.name}` gets `{camera.key}`"
        yield Finding(
            code="XV305",
            severity=severity,
            field=f"cameras.{camera.name}",
            measured=f"declared {camera.mount}, but it looks {_where(guess)}: {guess.evidence}"
            + (f"; '{partner.name}' is the other way round" if partner else ""),
            numbers={**guess.numbers, "confidence": guess.confidence, "partner": partner.name if partner else None},
            fix=fix,
        )
    main = next((camera for camera in cameras if camera.role == "main"), None)
    if main is None or main in wrong or places[main.name].value != "wrist":
        return
    fixed = [camera for camera in cameras if _is(places[camera.name], "fixed") and camera not in wrong]
    if _is(places[main.name], "wrist") and fixed:
        yield Finding(
            code="XV314",
            severity="warning",
            field=f"cameras.{main.name}",
            measured=f"the main view moves with the hand; '{fixed[0].name}' is fixed and sees the arm",
            numbers=places[main.name].numbers,
            fix=f"give `role: main` to '{fixed[0].name}'",
        )


def _contradicts(camera: CameraSpec, guess: Guess) -> bool:
    if guess.value is None or camera.mount not in ("fixed", "wrist"):
        return False  # a head or chest camera may move or stand
    return bool(guess.value != camera.mount)


def _is(guess: Guess, value: str) -> bool:
    return bool(guess.value == value and guess.confidence >= SURE)


def _where(guess: Guess) -> str:
    return "mounted on the wrist" if guess.value == "wrist" else "fixed"


def _unrelated(camera: CameraSpec, seen: Seen) -> Finding:
    return Finding(
        code="XV312",
        severity="warning" if camera.role == "main" or camera.mount == "wrist" else "info",
        field=f"cameras.{camera.name}",
        measured=f"the recorded motion explains {seen.follows:.0%} of how the image changes; at least {FOLLOWS:.0%} is "
        "needed to tell its mount, its delay and whether it is mirrored",
        numbers={"explained": seen.follows},
    )


def _mirror(camera: CameraSpec, seen: Seen, facts: dict, explained: set[int]) -> Iterator[Finding]:
    guess = flip(seen)
    facts["flip"], facts["flip_confidence"] = guess.value, guess.confidence
    mirrored = {"none": False, "both": False, "horizontal": True, "vertical": True}
    if guess.value is not None and guess.confidence >= LIKELY:
        known = guess.numbers.get("axis_known", False)
        wrong = mirrored[guess.value] != mirrored[camera.flip] or (known and guess.value != camera.flip)
        if guess.value == "both":
            wrong = camera.flip != "both"
        severity = severity_of(
            guess.confidence, "error" if mirrored[guess.value] != mirrored[camera.flip] else "warning"
        )
        if wrong and severity is not None:
            which = (
                "" if known or guess.value in ("none", "both") else " (or vertical, if it is mounted the other way up)"
            )
            says = {
                "none": f"declared `flip: {camera.flip}`, but the recorded images are plain",
                "both": "the image is upside down",
            }.get(guess.value, "the image is mirrored")
            yield Finding(
                code="XV307",
                severity=severity,
                field=f"cameras.{camera.name}",
                measured=f"{says}: {guess.evidence}",
                numbers={**guess.numbers, "confidence": guess.confidence, "flip": guess.value},
                fix=f"write `flip: {guess.value}` for camera '{camera.name}'{which}",
            )
    every, of = mirrored_episodes(seen)
    found = {episode: gain for episode, gain in every.items() if episode not in explained}
    if len(found) >= MIN_GROUP:
        episodes = tuple(sorted(found))
        gain = float(np.median(list(found.values())))
        yield Finding(
            code="XV307",
            severity="error" if gain > 0.5 and len(found) >= 2 * MIN_GROUP else "warning",
            field=f"cameras.{camera.name}",
            measured=f"mirrored or turned against the others in {counted(episodes, of)}: read so, the hand's motion "
            f"explains {gain:.0%} more of how the image changes",
            numbers={"gain": found, "of": of},
            fix="right the images of these episodes in the dataset, or leave the episodes out",
            episodes=episodes,
        )


def _delays(
    context: CheckContext, camera: CameraSpec, seen: Seen, facts: dict, explained: set[int]
) -> Iterator[Finding]:
    hz = context.recording.hz
    guess = delay(seen, hz)
    facts["delay_frames"], facts["delay_confidence"] = guess.value, guess.confidence
    if guess.value is not None and abs(guess.value) >= LATE_FRAMES and guess.confidence >= LIKELY:
        yield Finding(
            code="XV308",
            severity="error" if guess.confidence >= SURE and abs(guess.value) > LATE_FRAMES else "warning",
            field=f"cameras.{camera.name}",
            measured=guess.evidence,
            numbers={**guess.numbers, "confidence": guess.confidence, "frames": guess.value},
            fix=f"shift the images of '{camera.name}' by {-guess.value} frames against the numbers in the dataset",
        )
        return
    every, of = shifted_episodes(seen)
    found = {episode: lag for episode, lag in every.items() if episode not in explained}
    if len(found) >= MIN_GROUP:
        episodes = tuple(sorted(found))
        frames = int(np.median(list(found.values())))
        late = "late" if frames > 0 else "early"
        yield Finding(
            code="XV308",
            severity="warning",
            field=f"cameras.{camera.name}",
            measured=f"images are {abs(frames)} frames ({1000 * abs(frames) / hz:.0f} ms) {late} "
            f"against the numbers in {counted(episodes, of)}, and in time in the others",
            numbers={"frames": found, "of": of},
            fix="shift the images of these episodes in the dataset, or leave the episodes out",
            episodes=episodes,
        )


def _colours(camera: CameraSpec, guess: Guess) -> Iterator[Finding]:
    severity = severity_of(guess.confidence)
    if guess.value is None or guess.value == camera.channels or severity is None:
        return
    yield Finding(
        code="XV309",
        severity=severity,
        field=f"cameras.{camera.name}",
        measured=guess.evidence,
        numbers={**guess.numbers, "confidence": guess.confidence},
        fix=f"write `channels: {guess.value}` for camera '{camera.name}'",
    )
