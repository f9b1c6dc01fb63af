"""A robot's URDF or MJCF file as a compiled model of its bodies and joints, and nothing else of it.

In: a file of a plugin folder. Out: MuJoCo's compiled model. The XML comes from strangers: it is read under limits,
document types (and with them entities) are refused, and what reaches MuJoCo is a copy with bodies, joints and sites
alone. Meshes, textures, actuators and plugins are left out, so no other file is opened, but for MJCF's `include` of
files in the same plugin folder.
"""

import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

from xvla_platform.errors import XvlaError

LARGEST_FILE = 16 * 2**20  # bytes
MOST_ELEMENTS = 50_000
DEEPEST = 200
MOST_INCLUDES = 16
MOST_NUMBERS = 8  # in one attribute; a pose has at most six

ORIENTATION = ("quat", "axisangle", "xyaxes", "zaxis", "euler")
KEPT_MJCF = {
    "compiler": ("angle", "eulerseq", "autolimits", "coordinate"),
    "default": ("class",),
    "worldbody": ("childclass",),
    "body": ("name", "childclass", "pos", *ORIENTATION),
    "frame": ("name", "childclass", "pos", *ORIENTATION),
    "joint": ("name", "class", "type", "pos", "axis", "range", "limited", "ref"),
    "freejoint": ("name",),
    "site": ("name", "class", "pos", *ORIENTATION),
}
KEPT_URDF = {
    "link": ("name",),
    "joint": ("name", "type"),
    "origin": ("xyz", "rpy"),
    "parent": ("link",),
    "child": ("link",),
    "axis": ("xyz",),
    "limit": ("lower", "upper"),
}
PARENTS_URDF = {
    "link": "robot",
    "joint": "robot",
    **dict.fromkeys(("origin", "parent", "child", "axis", "limit"), "joint"),
}


def compile_robot(file: str, folder: Path) -> Any:
    """MuJoCo's model (`mujoco.MjModel`) of the bodies, joints and sites of `file`, a path inside `folder`."""
    text = portable(file, folder)
    mujoco = _library()
    try:
        return mujoco.MjModel.from_xml_string(text)
    except ValueError as error:
        raise XvlaError(f"cannot be read as a robot: {error}", file=inside(file, folder)) from None


def portable(file: str, folder: Path) -> str:
    """The bodies, joints and sites of `file` as one XML text that needs no other file, and can be read again."""
    path = inside(file, folder)
    root = _parse(path)
    if root.tag == "robot":
        clean = _clean_urdf(root, path)
    elif root.tag == "mujoco":
        _include(root, path.parent, folder, [path])
        clean = _clean_mjcf(root)
    else:
        raise XvlaError(
            "is neither URDF nor MJCF",
            file=path,
            found=f"<{root.tag}>",
            allowed="<robot> or <mujoco>",
            hint="a .xacro file is turned into URDF with the xacro command",
        )
    ElementTree.indent(clean)
    return ElementTree.tostring(clean, encoding="unicode") + "\n"


def inside(file: str, folder: Path) -> Path:
    """The path of `file` in `folder`; one that leads out of it is refused."""
    base = folder.resolve()
    try:
        path = (base / file).resolve()
        known = path.is_file()
    except (OSError, ValueError, RuntimeError) as error:
        raise XvlaError(f"cannot be read: {error}", field="kinematics.file", found=file) from None
    if not path.is_relative_to(base):
        raise XvlaError(
            "lies outside the plugin folder",
            field="kinematics.file",
            found=file,
            allowed=f"a file in {base}",
            hint="copy the robot's description into the plugin",
        )
    if not known:
        raise XvlaError("no such file", file=path, field="kinematics.file", hint="the path is relative to the plugin")
    return path


def _library() -> Any:
    try:
        import mujoco
    except ImportError:
        raise XvlaError(
            "kinematics needs MuJoCo, which is not installed", hint="pip install 'xvla-platform[kinematics]'"
        ) from None
    return mujoco


def _parse(path: Path) -> ElementTree.Element:
    """The file's elements, under limits; a document type is where entities would be declared, so none is allowed."""
    if path.stat().st_size > LARGEST_FILE:
        raise XvlaError(f"is larger than {LARGEST_FILE // 2**20} MiB", file=path)
    builder, parser = ElementTree.TreeBuilder(), expat.ParserCreate()
    counts = {"depth": 0, "elements": 0}

    def start(name: str, attributes: dict[str, str]) -> None:
        counts["depth"] += 1
        counts["elements"] += 1
        if counts["depth"] > DEEPEST or counts["elements"] > MOST_ELEMENTS:
            raise XvlaError(f"has more than {MOST_ELEMENTS} elements, or nests more than {DEEPEST} deep", file=path)
        builder.start(name, attributes)

    def end(name: str) -> None:
        counts["depth"] -= 1
        builder.end(name)

    def doctype(*_: object) -> None:
        raise XvlaError("declares a document type, which is not read", file=path, hint="remove its <!DOCTYPE ...>")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(path.read_bytes(), True)
        return builder.close()
    except (expat.ExpatError, OSError, ValueError, AssertionError, LookupError) as error:
        raise XvlaError(f"is not valid XML: {error}", file=path) from None


def _include(root: ElementTree.Element, place: Path, folder: Path, seen: list[Path]) -> None:
    """Replace every `<include file=…>` by what that file holds, inside the plugin folder."""
    for element in list(root):
        if element.tag != "include":
            _include(element, place, folder, seen)
            continue
        path = (place / element.get("file", "")).resolve()
        path = inside(str(path), folder)
        if path in seen or len(seen) > MOST_INCLUDES:
            raise XvlaError("is included twice, or too many files are", file=seen[0], field="include", found=path.name)
        seen.append(path)
        part = _parse(path)
        _include(part, place, folder, seen)
        at = list(root).index(element)
        root[at : at + 1] = list(part)


def _kept(element: ElementTree.Element, names: tuple[str, ...]) -> dict[str, str]:
    """The attributes in `names`; what looks like numbers is finite and short, as MuJoCo's own parser is trusting."""
    out = {}
    for name in names:
        value = element.get(name)
        if value is None:
            continue
        words = value.split()
        for word in words:
            try:
                number = float(word)
            except ValueError:
                continue
            if not math.isfinite(number) or len(words) > MOST_NUMBERS:
                raise XvlaError("is not a usable number", field=f"{element.tag}.{name}", found=value)
        out[name] = value
    return out


def _clean_mjcf(root: ElementTree.Element) -> ElementTree.Element:
    clean = ElementTree.Element("mujoco")
    for section in root:
        if section.tag in ("compiler", "default", "worldbody"):
            _copy_mjcf(section, clean)
    return clean


def _copy_mjcf(element: ElementTree.Element, parent: ElementTree.Element) -> None:
    if element.tag not in KEPT_MJCF:
        return
    copy = ElementTree.SubElement(parent, element.tag, _kept(element, KEPT_MJCF[element.tag]))
    for child in element:
        _copy_mjcf(child, copy)
    if element.tag == "body":  # the compiler refuses a moving body without mass, and kinematics does not ask for it
        ElementTree.SubElement(copy, "inertial", {"pos": "0 0 0", "mass": "1", "diaginertia": "1 1 1"})


def _clean_urdf(root: ElementTree.Element, path: Path) -> ElementTree.Element:
    clean = ElementTree.Element("robot", {"name": root.get("name", "robot")})
    _check_tree(root, path)
    compiler = ElementTree.SubElement(ElementTree.SubElement(clean, "mujoco"), "compiler")
    compiler.set("fusestatic", "false")  # else links behind fixed joints, such as most tips, lose their names
    for element in root:
        if PARENTS_URDF.get(element.tag) != "robot":
            continue
        copy = ElementTree.SubElement(clean, element.tag, _kept(element, KEPT_URDF[element.tag]))
        if element.tag == "link":
            inertial = ElementTree.SubElement(copy, "inertial")
            ElementTree.SubElement(inertial, "mass", {"value": "1"})
            ones = {"ixx": "1", "iyy": "1", "izz": "1", "ixy": "0", "ixz": "0", "iyz": "0"}
            ElementTree.SubElement(inertial, "inertia", ones)
            continue
        for part in element:
            if PARENTS_URDF.get(part.tag) == "joint":
                ElementTree.SubElement(copy, part.tag, _kept(part, KEPT_URDF[part.tag]))
    return clean


def _check_tree(root: ElementTree.Element, path: Path) -> None:
    """Every link hangs on at most one joint, and all of them on one root; a ring would never end."""
    links = [link.get("name", "") for link in root.findall("link")]
    parents: dict[str, str] = {}
    for joint in root.findall("joint"):
        ends = [joint.find(tag) for tag in ("parent", "child")]
        parent, child = ("" if end is None else end.get("link", "") for end in ends)
        unknown = [name for name in (parent, child) if name not in links]
        if unknown:
            raise XvlaError(
                "joint with an unknown link", file=path, field=joint.get("name"), found=unknown[0] or "none"
            )
        if child in parents:
            raise XvlaError("link is the child of two joints", file=path, field=child)
        parents[child] = parent
    for link in links:
        seen = {link}
        while link in parents:
            link = parents[link]
            if link in seen:
                raise XvlaError("links form a ring", file=path, field=link)
            seen.add(link)
    roots = [link for link in links if link not in parents]
    if len(roots) != 1:
        raise XvlaError("needs exactly one root link", file=path, found=", ".join(roots[:4]) or "none")
