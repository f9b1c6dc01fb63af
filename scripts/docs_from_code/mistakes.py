"""Typical mistakes, made on the worked example, and the line that the platform answers."""

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from docs_from_code.common import ROOT, table

ARM = "plugins/my_arm/plugin.yaml"
DECLARED: list[tuple[str, tuple[Any, ...], Any]] = [
    ("A field left out", ("control_hz",), None),
    ("A misspelt field", ("proprio", "fields", 0, "units"), "m"),
    ("A unit that does not exist", ("proprio", "fields", 0, "unit"), "inch"),
    ("A unit of another kind", ("proprio", "fields", 0, "unit"), "deg"),
    ("Two main views", ("cameras", 1, "role"), "main"),
    ("A rotation format of another size", ("action", "fields", 1, "format"), "quaternion_xyzw"),
    ("A gripper without its range", ("action", "fields", 2, "closed"), None),
    ("A gripper without polarity", ("action", "fields", 2, "closed"), 1.0),
    ("State and action in two frames", ("action", "fields", 0, "frame"), "world"),
    ("Two data sources", ("dataset", "repo"), "lab/demonstrations"),
    ("A copied slot without its number", ("prompt", "init"), "copy"),
    ("A file of a newer platform", ("schema_version",), 2),
]
MEASURED: list[tuple[str, tuple[Any, ...], Any]] = [
    ("A rate that is not the recording's", ("control_hz",), 30),
    ("A key the dataset lacks", ("cameras", 1, "key"), "observation.images.hand"),
    ("A resolution that is not the recording's", ("cameras", 0, "resolution"), [128, 160]),
    ("Fields that do not fill the column", ("proprio", "fields", 2), None),
]
CODE: list[tuple[str, str]] = [
    ("A misspelt hook", "@hookimpl\ndef check_before_pus(manifest, folder):\n    return []\n"),
    ("An argument that the hook does not have", "@hookimpl\ndef step_finished(stage, loss):\n    pass\n"),
    ("Code that does not run", "1 / 0\n"),
]


def mistakes() -> str:
    """Typical mistakes, made on the example, with the line that the platform answers."""
    rows = [(what, _answer(_declare, path, value)) for what, path, value in DECLARED]
    rows += [(what, _answer(_measure, path, value)) for what, path, value in MEASURED]
    rows += [(what, _answer(_run_code, text)) for what, text in CODE]
    return table(("mistake", "the line it gives"), [(what, f"`` {line} ``") for what, line in rows])


def _answer(action: Callable[..., object], *arguments: Any) -> str:
    from xvla_platform.errors import XvlaError

    try:
        action(*arguments)
    except XvlaError as error:
        return str(error)
    raise SystemExit("a mistake in the list is none any more")


def _changed(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load((ROOT / ARM).read_text(encoding="utf-8"))
    place: Any = data
    for part in path[:-1]:
        place = place[part]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return data


def _declare(path: tuple[Any, ...], value: Any) -> Any:
    from xvla_platform.specs.base import validate_model
    from xvla_platform.specs.embodiment import EmbodimentSpec

    return validate_model(EmbodimentSpec, _changed(path, value), ARM)


def _measure(path: tuple[Any, ...], value: Any) -> None:
    from xvla_platform.data.verify import check_dataset
    from xvla_platform.platform.embodiments import open_data

    spec = _declare(path, value)
    check_dataset(open_data(spec, ROOT / "plugins" / "my_arm"), spec, plugin=Path(ARM))


def _run_code(text: str) -> None:
    from xvla_platform.errors import XvlaError
    from xvla_platform.platform.plugins import build_manager

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        (folder / "plugin.py").write_text(f"from xvla_platform import hookimpl\n\n\n{text}")
        try:
            build_manager(folder)
        except XvlaError as error:
            line = re.sub(r"<module '_xvla_plugin_\w+' from '([^']+)'>", r"\1", str(error))
            raise XvlaError(line.replace(str(folder), "plugins/my_arm")) from None
