"""`xvla new-plugin NAME --from DATASET`: a robot's declaration, written from its data."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xvla_platform.cli.output import common_options, done, json_wanted, say

if TYPE_CHECKING:
    from xvla_platform.scaffold.draft import Draft
    from xvla_platform.specs.blanks import Place


@click.command(short_help="Write a robot's plugin from its dataset.")
@click.argument("name")
@click.option("--from", "source", help="Dataset folder or file, Hub dataset id, or lerobot_robot_* package.")
@click.option("--revision", help="Commit, tag or branch of a dataset on the Hub.")
@click.option("--empty", is_flag=True, help="A commented template without a dataset.")
@click.option("--main-camera", help="Which camera is the main view, by its key or its name.")
@click.option("--yes", is_flag=True, help="Ask nothing: likely values are written, unknown ones stay blank.")
@click.option("--force", is_flag=True, help="Replace an existing plugin.yaml and README.md.")
@common_options
def new_plugin(
    name: str,
    source: str | None,
    revision: str | None,
    empty: bool,
    main_camera: str | None,
    yes: bool,
    force: bool,
    workspace: Path | None,
) -> None:
    """Write plugins/NAME/plugin.yaml, commented, from what a dataset's names and numbers say.

    SOURCE is a LeRobot, HDF5 or RLDS dataset, an X-VLA meta file, a dataset on the Hub, or a LeRobot hardware
    package. Every inferred value carries its confidence and its evidence. What is likely is marked `check:`; what
    cannot be known is left blank as `???`, and nothing loads before it is answered. On a terminal each uncertain
    point is asked. The data stays where it is.
    """
    from xvla_platform.errors import XvlaError
    from xvla_platform.platform.workspace import Workspace
    from xvla_platform.scaffold.draft import leaves, resolve, state_of
    from xvla_platform.scaffold.write import plugin_folder, write_plugin
    from xvla_platform.specs.blanks import dotted, find_blanks

    _check_words(name, source, revision, empty, main_camera)
    place = Workspace.find(workspace)
    plugin_folder(place, name, force=force)
    notes: tuple[str, ...] = ()
    label, data = "an empty template", None
    if empty:
        from xvla_platform.scaffold.empty import empty_draft

        draft = empty_draft(name)
    else:
        from xvla_platform.platform.plugins import build_manager, contributions
        from xvla_platform.scaffold.infer import infer
        from xvla_platform.scaffold.sources import open_source

        assert source is not None
        readers = contributions(build_manager(), "register_dataset_readers")
        opened = open_source(source, revision, readers.values())
        if opened.reader is not None:
            episodes = opened.reader.episodes
            frames = sum(episode.length for episode in episodes)
            say(f"reading   {opened.label}: {len(episodes)} episodes, {frames} frames")
        result = infer(opened, name, main_camera=main_camera)
        draft, notes, label, data = result.draft, result.notes, opened.label, opened.place
    asks = not yes and not empty and not json_wanted() and sys.stdin.isatty()
    if asks:
        draft = _interview(draft)
    try:
        written = write_plugin(place, draft, source=label, place=data, notes=notes, force=force)
    except OSError as error:
        raise XvlaError(f"cannot be written: {error.strerror}", file=place.shown(place.plugins / name)) from None
    blanks = [dotted(spot) for spot in find_blanks(resolve(draft))]
    checks = [dotted(spot) for spot, guess in leaves(draft) if state_of(guess) == "check"]
    for note in notes:
        say(f"note      {note}")
    if written.link is not None:
        say(f"linked    {place.shown(written.link)} -> {data} (records carry the link's name, not that path)")
    say(f"sure      {sum(state_of(guess) == 'sure' for _, guess in leaves(draft))} values")
    say(f"check     {len(checks)} likely values{': ' if checks else ''}{', '.join(checks)}")
    say(f"blank     {len(blanks)}{': ' if blanks else ''}{', '.join(blanks)}")
    shown = place.shown(written.folder)
    if blanks:
        say(f"first     answer the blanks (???) in {shown}/plugin.yaml: nothing loads it before")
    done(
        wrote=[place.shown(path) for path in written.files],
        next_command=f"xvla check {shown}",
        data={
            "plugin": shown,
            "blanks": blanks,
            "check": checks,
            "notes": list(notes),
            "link": place.shown(written.link) if written.link is not None else None,
            "guesses": [_as_json(spot, guess) for spot, guess in leaves(draft)],
        },
    )


def _check_words(name: str, source: str | None, revision: str | None, empty: bool, main_camera: str | None) -> None:
    import re

    from xvla_platform.errors import XvlaError
    from xvla_platform.specs.embodiment import NAME_PATTERN

    if not re.fullmatch(NAME_PATTERN, name):
        raise XvlaError(
            "a plugin's name is lower case letters, digits and underscores, a letter first",
            field="NAME",
            found=name,
            hint="it is written to plugins/NAME of the workspace",
        )
    if empty == (source is not None):
        raise XvlaError("give exactly one of --from (a dataset) and --empty (a template without one)")
    for option, value in (("--revision", revision), ("--main-camera", main_camera)):
        if empty and value is not None:
            raise XvlaError(f"{option} goes with --from", field=option, found=value)


def _interview(draft: "Draft") -> "Draft":
    """Ask each uncertain point once, in the order of the file; Enter takes the guess, or leaves a blank."""
    from xvla_platform.scaffold.draft import answered, leaves, state_of
    from xvla_platform.specs.blanks import find_blanks

    asked: set[Any] = set()
    while True:
        open_points = [(spot, guess) for spot, guess in leaves(draft) if state_of(guess) != "sure"]
        spot, guess = next(((spot, guess) for spot, guess in open_points if spot not in asked), (None, None))
        if spot is None or guess is None:
            break
        asked.add(spot)
        answer = _ask(draft, spot, guess)
        if answer is not None:
            draft = answered(draft, spot, answer)
    left = len(list(find_blanks(draft)))
    if left:
        say(f"{left} points stay blank")
    return draft


def _ask(draft: "Draft", spot: "Place", guess: Any) -> Any:
    """One question; None where the answer is that nobody knows."""
    from xvla_platform.scaffold.draft import resolve
    from xvla_platform.specs.blanks import BLANK, QUESTIONS, allowed_values, dotted, shown
    from xvla_platform.specs.embodiment import EmbodimentSpec

    plain = resolve(draft)
    words = allowed_values(EmbodimentSpec, plain, spot)
    click.echo(f"\n{dotted(spot)}: {QUESTIONS.get(str(spot[-1]), 'what belongs here')}?")
    click.echo(f"  seen: {guess.evidence}")
    if words:
        click.echo(f"  one of: {shown(words)}")
    default = BLANK if guess.value is None else guess.value
    hint = "Enter leaves it blank" if guess.value is None else f"Enter takes it, {BLANK} leaves it blank"
    while True:
        text = click.prompt(f"  {hint}", default=str(default), show_default=guess.value is not None)
        if text == BLANK:
            return None
        if text == str(default):
            return guess.value
        value = _parsed(text)
        fault = _fault(str(spot[-1]), value, words)
        if fault is None:
            return value
        click.echo(f"  {text} {fault}")


def _fault(field: str, value: Any, words: tuple[str, ...]) -> str | None:
    """Why an answer will not do, before the whole file is checked."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if words:
        return None if value in words else "is none of them"
    if field == "resolution":
        pair = isinstance(value, list) and len(value) == 2 and all(type(side) is int for side in value)
        return None if pair else "is no pair of pixels such as [480, 640]"
    if field in ("control_hz", "horizon_s", "open", "closed", "scale", "value"):
        return None if number else "is no number"
    if field == "size":
        return None if type(value) is int and value > 0 else "is no whole number"
    return None if isinstance(value, str) and value.strip() else "is no text"


def _parsed(text: str) -> Any:
    """A number or a list where it reads as one, else the text."""
    import yaml

    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return value if isinstance(value, (int, float, list)) else text


def _as_json(spot: "Place", guess: Any) -> dict[str, Any]:
    from xvla_platform.scaffold.draft import decided, state_of
    from xvla_platform.specs.blanks import dotted

    return {
        "field": dotted(spot),
        "value": guess.value,
        "written": decided(guess),
        "state": state_of(guess),
        "confidence": round(float(guess.confidence), 3),
        "evidence": guess.evidence,
    }
