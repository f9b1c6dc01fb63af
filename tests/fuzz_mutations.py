"""Random damage to files: bytes, structures, and whole folders. Everything follows from the generator given."""

import copy
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import yaml

JUNK: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 3.5, -0.0, 1e308, -1e308, 1e-320, 2**31, 2**63, 2**70, -(2**65)),
    *(float("nan"), float("inf"), float("-inf"), "", " ", "???", "x", "0", "nan", "../..", "/", "~", "a" * 5000),
    *("/dev/zero", "/etc/passwd", "Å\u202e\u0000\ud7ff", "🤖🦾", "\u0000", "{}", "%s%n", "{episode_index}"),
    *([], {}, [[]], [None], {"": None}, {"a": 1}, [1, 2, 3], ["quaternion_xyzw"], {"name": "x"}),
    *("relative", "joint", "gripper", "rotation", "rot6d_columns", "mm", "deg"),
)
SNIPPETS = (
    *("&a [*a]", "&a {b: *a}", "*nothing", "!!python/object/apply:os.system ['true']", "!!binary aGk=", "!!set {a, b}"),
    *("2001-01-01", "0x10", "1e999", "<<: {a: 1}", "? [complex, key] : 1", "%YAML 9.9", "---\n---", "\t", "- - - -"),
    *("|\n  text", "!!float nan", "{a: {a: {a: {a: {}}}}}", "[" * 300, "{" * 300, "\ufeff", "0b1", ".inf"),
    *("12:30:45", "~", "'", '"'),
)


WORDS: dict[str, tuple[Any, ...]] = {
    "unit": ("m", "cm", "mm", "rad", "deg", "percent", "normalized"),
    "format": ("lerobot", "hdf5", "rlds", "euler_zyx_intrinsic", "axis_angle", "euler_xyz_extrinsic", "matrix"),
    "frame": ("base", "world", "camera", "tool"),
    "reference": ("absolute", "relative", "relative_to_first"),
    "axes": ("frame", "tool"),
    "arm": ("left", "right"),
    "kind": ("position", "rotation", "joint", "gripper", "ignored"),
    "mount": ("fixed", "wrist", "head", "other"),
    "flip": ("horizontal", "vertical", "both"),
    "tail": ("hold", "shrink"),
    "init": ("nearest", "mean", "random"),
    "normalization": ("none", "mean_std", "min_max", "quantile"),
    "key": ("action", "observation.state", "observation.images.front", "timestamp", "task_index"),
    "name": ("left", "gripper", "position", "arm_2"),
    "path": ("demonstrations", ".", "..", "plugin.yaml", "demonstrations/meta", "demonstrations/meta/info.json"),
}
NUMBERS = (0.0, 0.01, 0.5, 0.99, 1.0, 2.0, 5.0, 10.0, 29.97, 60.0, 100.0, 1e-6, -1.0, 1e6)


def damage_bytes(content: bytes, rng: random.Random) -> bytes:
    """The content with some bytes flipped, cut, repeated, moved or put in."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 5, 20))):
        place = rng.randrange(len(data) + 1)
        length = rng.choice((1, 1, 4, 16, 200, max(1, len(data) // 3)))
        kind = rng.randrange(8)
        if kind == 0 and data:
            data[min(place, len(data) - 1)] ^= 1 << rng.randrange(8)
        elif kind == 1 and data:
            data[min(place, len(data) - 1)] = rng.randrange(256)
        elif kind == 2:
            del data[place : place + length]
        elif kind == 3:
            data[place:place] = rng.randbytes(length)
        elif kind == 4:
            data[place:place] = data[place : place + length]
        elif kind == 5:
            data[place : place + length] = b"\x00" * length
        elif kind == 6:
            data[place : place + length] = b"\xff" * length
        else:
            del data[place:]
    return bytes(data)


def damage_value(value: Any, rng: random.Random) -> Any:
    """A copy of a nested value with some entries removed, renamed, swapped, repeated, nested or replaced."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        holders = [holder for holder in _holders(value) if holder]
        if not holders:
            return rng.choice(JUNK)
        holder = rng.choice(holders)
        key = rng.choice(list(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
        kind = rng.randrange(9)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[rng.choice((f"{key}s", str(key)[:-1], str(key).upper(), " " + str(key), "key", "é"))] = holder.pop(
                key
            )
        elif kind == 2:
            other = rng.choice(holders)
            their = rng.choice(list(other)) if isinstance(other, dict) else rng.randrange(len(other))
            holder[key], other[their] = copy.deepcopy(other[their]), copy.deepcopy(holder[key])
        elif kind == 3:
            holder[key] = [holder[key]] * rng.choice((1, 2, 70))
        elif kind == 4 and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        elif kind == 5 and isinstance(holder[key], (int, float)):
            holder[key] = holder[key] * rng.choice((-1, 0, 1000, 1e300, 1.0001))
        elif kind == 6:
            deep: Any = holder[key]
            for _ in range(rng.choice((1, 5, 200))):
                deep = {"a": deep}
            holder[key] = deep
        else:
            holder[key] = copy.deepcopy(rng.choice(JUNK))
    return value


def restate(value: Any, rng: random.Random) -> Any:
    """A copy of a declaration with one to three entries said otherwise, each as a person might have meant it."""
    value = copy.deepcopy(value)
    leaves = [
        (holder, key)
        for holder in _holders(value)
        for key in (holder if isinstance(holder, dict) else range(len(holder)))
        if isinstance(holder[key], (str, float, int))
    ]
    for holder, key in rng.sample(leaves, rng.choice((1, 1, 1, 1, 2, 3))):
        words = WORDS.get(str(key)) if isinstance(holder[key], str) else NUMBERS
        holder[key] = rng.choice(words or ("other words",))
    fields = value["action"]["fields"] if isinstance(value.get("action"), dict) else []
    if rng.random() < 0.3 and fields:
        extra = {"normalization": "quantile", "threshold": 0.04, "scale": 0.05, "axes": "tool", "reference": "relative"}
        name = rng.choice(list(extra))
        rng.choice(fields)[name] = extra[name]
    return value


def damage_yaml(text: str, rng: random.Random) -> bytes:
    """A plugin file with damage to its bytes, its lines or its structure."""
    kind = rng.randrange(10)
    if kind < 2:
        return damage_bytes(text.encode(), rng)
    if kind < 5:
        lines = text.splitlines()
        for _ in range(rng.choice((1, 1, 2, 4))):
            place = rng.randrange(len(lines))
            change = rng.randrange(5)
            if change == 0:
                lines.insert(place, lines[place])
            elif change == 1 and len(lines) > 1:
                del lines[place]
            elif change == 2:
                lines[place] = " " * rng.randrange(1, 4) + lines[place]
            elif change == 3:
                head, colon, _ = lines[place].partition(":")
                lines[place] = f"{head}{colon} {rng.choice(SNIPPETS)}"
            else:
                lines.insert(place, rng.choice(SNIPPETS))
        return "\n".join(lines).encode("utf-8", "surrogatepass")
    change = restate if kind < 8 else damage_value
    value = change(yaml.safe_load(text), rng)
    as_json = json.dumps(value).encode("utf-8", "surrogatepass")
    if rng.random() < 0.2:
        return as_json
    try:
        text = yaml.safe_dump(value, sort_keys=False, allow_unicode=rng.random() < 0.5)
    except RecursionError:  # nested deeper than YAML can be written; JSON is YAML too
        return as_json
    return text.encode("utf-8", "surrogatepass")


def damage_folder(folder: Path, rng: random.Random) -> str:
    """One damage to one file below `folder` (or to `folder`, if it is a file); says what was done."""
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else [folder]
    path = rng.choice(files)
    kind = rng.randrange(14)
    if kind == 13:
        kind = 12
    if path.suffix in (".json", ".jsonl") and rng.random() < 0.6:
        return _damage_json(path, rng)
    if path.suffix == ".parquet" and rng.random() < 0.6:
        return _damage_table(path, rng)
    if path.suffix in (".hdf5", ".h5") and rng.random() < 0.6:
        return _damage_hdf5(path, rng)
    if kind < 6:
        path.write_bytes(damage_bytes(path.read_bytes(), rng))
        return f"bytes of {path.name}"
    if kind == 6:
        path.unlink()
        return f"{path.name} removed"
    if kind == 7:
        other = rng.choice(files)
        first, second = path.read_bytes(), other.read_bytes()
        path.write_bytes(second)
        other.write_bytes(first)
        return f"{path.name} and {other.name} swapped"
    if kind == 8:
        target = rng.choice(("/etc/passwd", "/dev/zero", "/nonexistent", str(path), str(path.parent), "/"))
        path.unlink()
        os.symlink(target, path)
        return f"{path.name} is a link to {target}"
    if kind == 9:
        path.unlink()
        path.mkdir()
        return f"{path.name} is a folder"
    if kind == 10:
        path.write_bytes(b"")
        return f"{path.name} is empty"
    if kind == 11 and folder.is_dir() and path.parent != folder:
        shutil.rmtree(path.parent)
        return f"{path.parent.name}/ removed"
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size + 1)])
    return f"{path.name} cut"


def _damage_json(path: Path, rng: random.Random) -> str:
    text = path.read_text()
    if path.suffix == ".json":
        path.write_text(json.dumps(damage_value(json.loads(text), rng)))
        return f"entries of {path.name}"
    lines = text.splitlines()
    place = rng.randrange(len(lines))
    change = rng.randrange(4)
    if change == 0:
        lines.append(lines[place])
    elif change == 1:
        del lines[place]
    else:
        lines[place] = json.dumps(damage_value(json.loads(lines[place]), rng))
    path.write_text("\n".join(lines))
    return f"lines of {path.name}"


def _damage_table(path: Path, rng: random.Random) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    name = rng.choice(table.column_names)
    place, change, rows = table.column_names.index(name), rng.randrange(7), table.num_rows
    if change == 0:
        table = table.drop_columns([name])
    elif change == 1:
        table = table.slice(rng.randrange(rows), rng.randrange(rows + 1))
    elif change == 2:
        table = table.set_column(place, name, pa.nulls(rows, table.schema.field(name).type))
    elif change == 3:
        table = table.set_column(place, name, pa.array([str(rng.random())] * rows))
    elif change == 4:
        junk = rng.choice((-1, 0, 1, 2**40, 7))
        table = table.set_column(place, name, pa.array([junk] * rows))
    elif change == 5:
        table = table.take(pa.array(rng.sample(range(rows), rows)))
    else:
        table = pa.concat_tables([table, table])
    pq.write_table(table, path)
    return f"column {name} of {path.name}, change {change}"


def _damage_hdf5(path: Path, rng: random.Random) -> str:
    import h5py
    import numpy as np

    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        name, change = rng.choice(names), rng.randrange(9)
        if change in (0, 1):
            del file[name]
            if change == 1:
                file[name] = rng.choice(("text", 3, 0.5, np.zeros(0), np.zeros((3, 0, 2)), np.zeros((2, 2, 2, 2))))
        elif change == 2:
            del file[name]
            file[name] = h5py.SoftLink(rng.choice(("/nowhere", name, "/", "/..")))
        elif change == 3:
            del file[name]
            file[name] = h5py.ExternalLink(rng.choice(("/etc/passwd", path.name, "other.hdf5")), "/action")
        elif change == 4:
            owner = file if rng.random() < 0.5 else file[name]
            for key in list(owner.attrs):
                owner.attrs[key] = rng.choice(("junk", -1, 2**40, float("nan"), "{", b"\xff\xfe"))
        elif change == 5 and isinstance(file[name], h5py.Dataset) and file[name].ndim:
            values = file[name][()][: rng.randrange(len(file[name]) + 1)]
            del file[name]
            file.create_dataset(name, data=values)
        elif change == 6:
            del file[name]
            file.create_dataset(name, shape=(2**40, 7), chunks=(1024, 7), dtype="f4")
        elif change == 7:
            file.create_group(f"{name}_x/demo_-1/{'a' * 200}")
        else:
            del file[name]
            file.create_dataset(name, data=np.array(["a", "bb"], dtype=h5py.string_dtype()))
    return f"{name} of {path.name}, change {change}"


def _holders(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [value, *(holder for item in value.values() for holder in _holders(item))]
    if isinstance(value, list):
        return [value, *(holder for item in value for holder in _holders(item))]
    return []
