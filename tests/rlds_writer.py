"""RLDS datasets as TFDS writes them, for tests: TFRecord shards, `features.json` and `dataset_info.json`.

The records are serialised by Google's protobuf library and their checksums by google-crc32c, so that the reader is
tested against something other than itself.
"""

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "tensorflow_datasets.core.features"


def masked_crc(content: bytes) -> int:
    """TFRecord's checksum: crc32c, rotated and shifted so that a checksum of checksums stays sound."""
    crc = google_crc32c.value(content)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def frame(content: bytes) -> bytes:
    """One framed TFRecord."""
    length = struct.pack("<Q", len(content))
    return length + struct.pack("<I", masked_crc(length)) + content + struct.pack("<I", masked_crc(content))


def write_tfrecord(path: Path, records: Iterable[bytes]) -> None:
    path.write_bytes(b"".join(frame(record) for record in records))


@cache
def example_class() -> Any:
    """`tf.train.Example`, built from its public schema."""
    kind = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="t", syntax="proto3")
    for name, wire in (
        ("BytesList", kind.TYPE_BYTES),
        ("FloatList", kind.TYPE_FLOAT),
        ("Int64List", kind.TYPE_INT64),
    ):
        file.message_type.add(name=name).field.add(name="value", number=1, type=wire, label=kind.LABEL_REPEATED)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(("bytes_list", "float_list", "int64_list"), start=1):
        target = f".t.{name.title().replace('_', '')}"
        feature.field.add(
            name=name,
            number=number,
            type=kind.TYPE_MESSAGE,
            type_name=target,
            label=kind.LABEL_OPTIONAL,
            oneof_index=0,
        )
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=kind.TYPE_STRING, label=kind.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=kind.TYPE_MESSAGE, type_name=".t.Feature", label=kind.LABEL_OPTIONAL)
    features.field.add(
        name="feature",
        number=1,
        type=kind.TYPE_MESSAGE,
        type_name=".t.Features.FeatureEntry",
        label=kind.LABEL_REPEATED,
    )
    example = file.message_type.add(name="Example")
    example.field.add(
        name="features", number=1, type=kind.TYPE_MESSAGE, type_name=".t.Features", label=kind.LABEL_OPTIONAL
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Example"))


def example(features: Mapping[str, Any]) -> bytes:
    """A serialised Example: lists of bytes, arrays of floats, arrays of integers or booleans."""
    message = example_class()()
    for key, values in features.items():
        feature = message.features.feature[key]
        if isinstance(values, np.ndarray) and values.dtype.kind == "f":
            feature.float_list.value.extend(values.ravel().tolist())
        elif isinstance(values, np.ndarray):
            feature.int64_list.value.extend(int(value) for value in values.ravel())
        else:
            feature.bytes_list.value.extend(values)
    return bytes(message.SerializeToString(deterministic=True))


def tensor(shape: Sequence[int], dtype: str) -> dict[str, Any]:
    dims = {"dimensions": [str(size) for size in shape]} if shape else {}
    name = "tensor_feature.Tensor" if shape else "scalar.Scalar"
    return {
        "pythonClassName": f"{PACKAGE}.{name}",
        "tensor": {"shape": dims, "dtype": dtype, "encoding": "none"},
    }


def image(shape: Sequence[int], encoding: str) -> dict[str, Any]:
    return {
        "pythonClassName": f"{PACKAGE}.image_feature.Image",
        "image": {
            "shape": {"dimensions": [str(size) for size in shape]},
            "dtype": "uint8",
            "encodingFormat": encoding,
        },
    }


def text() -> dict[str, Any]:
    return {"pythonClassName": f"{PACKAGE}.text_feature.Text", "text": {}}


def group(features: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "pythonClassName": f"{PACKAGE}.features_dict.FeaturesDict",
        "featuresDict": {"features": dict(features)},
    }


def write_tfds(
    folder: Path,
    steps: Mapping[str, Any],
    episodes: Sequence[Mapping[str, Any]],
    *,
    name: str = "tester",
    split: str = "train",
    shards: int = 2,
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """A TFDS folder; `steps` declares the step's features, `episodes` are Examples' features."""
    folder.mkdir(parents=True, exist_ok=True)
    sequence = {
        "pythonClassName": f"{PACKAGE}.dataset_feature.Dataset",
        "sequence": {"feature": group(steps), "length": "-1"},
    }
    declared = group({"steps": sequence, **({"episode_metadata": group(metadata)} if metadata else {})})
    (folder / "features.json").write_text(json.dumps(declared, indent=4))
    parts = [list(part) for part in np.array_split(np.arange(len(episodes)), shards)]
    info = {
        "name": name,
        "version": "1.0.0",
        "fileFormat": "tfrecord",
        "splits": [
            {
                "name": split,
                "shardLengths": [str(len(part)) for part in parts],
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "numBytes": "1",
            }
        ],
    }
    (folder / "dataset_info.json").write_text(json.dumps(info, indent=2))
    for number, part in enumerate(parts):
        path = folder / f"{name}-{split}.tfrecord-{number:05d}-of-{shards:05d}"
        write_tfrecord(path, [example(episodes[index]) for index in part])
    return folder
