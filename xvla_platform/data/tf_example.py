"""`tf.train.Example` in its protobuf wire format, read by position so that unwanted images are never touched.

An Example holds one map from names to lists of bytes, float32 or int64. `find_features` says where each list lies;
`bytes_spans` and `numbers` read one. Every function raises ValueError where the bytes are not what they should be.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xvla_platform.data.tfrecord import Span, Window

KINDS = {1: "bytes", 2: "float", 3: "int64"}  # fields of `tf.train.Feature`
VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5
LONGEST_NAME = 4096


@dataclass(frozen=True)
class FeatureSpan:
    """Where a feature's list lies in its record; `kind` is `bytes`, `float`, `int64`, or empty for no value."""

    kind: str
    span: Span


def find_features(record: Window) -> dict[str, FeatureSpan]:
    """Every feature of the Example in `record`, by name."""
    found: dict[str, FeatureSpan] = {}
    whole = Span(0, record.span.size)
    for number, features in _messages(record, whole):
        if number != 1:
            continue
        for entry_number, entry in _messages(record, features):
            if entry_number == 1:
                name, feature = _entry(record, entry)
                found[name] = feature
    return found


def bytes_spans(record: Window, feature: FeatureSpan) -> list[Span]:
    """Where each value of a list of bytes lies in the record."""
    return [span for number, span in _messages(record, feature.span) if number == 1]


def numbers(record: Window, feature: FeatureSpan) -> NDArray[np.float64] | NDArray[np.int64]:
    """The values [N] of a list of numbers, float64 or int64."""
    packed: list[bytes] = []
    loose = bytearray()
    place, end = feature.span.start, feature.span.start + feature.span.size
    while place < end:
        number, wire, place = _tag(record, place)
        value, place = _value(record, wire, place)
        if number != 1:
            continue
        if wire == DELIMITED:
            packed.append(record.read(value.start, value.size))
        else:
            loose += record.read(value.start, value.size)
    content = b"".join([*packed, bytes(loose)])
    if feature.kind == "float":
        if len(content) % 4:
            raise ValueError("a list of numbers is cut off")
        return np.frombuffer(content, dtype="<f4").astype(np.float64)
    return _varints(content)


def _entry(record: Window, entry: Span) -> tuple[str, FeatureSpan]:
    name, feature = "", FeatureSpan("", Span(entry.start, 0))
    for number, span in _messages(record, entry):
        if number == 1:
            if span.size > LONGEST_NAME:
                raise ValueError("a feature's name is too long")
            name = record.read(span.start, span.size).decode("utf-8")
        elif number == 2:
            for kind, values in _messages(record, span):
                feature = FeatureSpan(KINDS.get(kind, ""), values)
    return name, feature


def _messages(record: Window, within: Span) -> list[tuple[int, Span]]:
    """(field number, place) of each length-delimited field; others are passed over."""
    found, place, end = [], within.start, within.start + within.size
    while place < end:
        number, wire, place = _tag(record, place)
        span, place = _value(record, wire, place)
        if wire == DELIMITED:
            found.append((number, span))
    if place != end:
        raise ValueError("a field reaches beyond its message")
    return found


def _tag(record: Window, place: int) -> tuple[int, int, int]:
    value, place = _varint(record, place)
    return value >> 3, value & 7, place


def _value(record: Window, wire: int, place: int) -> tuple[Span, int]:
    """Where the field's value lies, and the place after it."""
    if wire == VARINT:
        _, after = _varint(record, place)
        return Span(place, after - place), after
    if wire in (FIXED64, FIXED32):
        size = 8 if wire == FIXED64 else 4
    elif wire == DELIMITED:
        size, place = _varint(record, place)
    else:
        raise ValueError(f"it holds a field of unknown wire type {wire}")
    if place + size > record.span.size:
        raise ValueError("it is cut off")
    return Span(place, size), place + size


def _varint(record: Window, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = record.read(place, 1)[0]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("a number is longer than ten bytes")


def _varints(content: bytes) -> NDArray[np.int64]:
    """All base-128 numbers of `content` at once: seven bits a byte, the lowest first."""
    raw = np.frombuffer(content, dtype=np.uint8)
    ends = np.flatnonzero(raw < 0x80)
    if not len(raw):
        return np.zeros(0, dtype=np.int64)
    if not len(ends) or ends[-1] != len(raw) - 1:
        raise ValueError("a list of numbers is cut off")
    starts = np.concatenate([[0], ends[:-1] + 1])
    widths = ends - starts + 1
    if widths.max() > 10:
        raise ValueError("a number is longer than ten bytes")
    values = np.zeros(len(ends), dtype=np.uint64)
    for byte in range(int(widths.max())):
        longer = np.flatnonzero(widths > byte)
        values[longer] |= (raw[starts[longer] + byte] & 0x7F).astype(np.uint64) << np.uint64(7 * byte)
    return values.view(np.int64)
