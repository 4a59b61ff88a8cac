"""Exports of a version: its graph as it is served, with what a stranger needs to use it in the file's own metadata."""

from collections.abc import Iterator, Mapping
from typing import Any

from storage.domain import Model, StoredFile, Version
from trainer.networks.description import description

_METADATA_PROPS, _KEY, _VALUE = 14, 1, 2  # numbers of fields: ModelProto.metadata_props, and of its entries
_BYTES = 2  # protobuf's wire type of strings and messages


def described(graph: bytes, entries: Mapping[str, str]) -> bytes:
    """A serialised ONNX model with more entries of metadata; without the package onnx.

    Serialised protobuf messages that follow one another are one message, whose repeated fields hold the elements of
    both (protobuf.dev, Encoding, "Last One Wins"). So the graph itself is not parsed, and stays as it is.
    """
    return graph + b"".join(
        _field(_METADATA_PROPS, _field(_KEY, key.encode()) + _field(_VALUE, value.encode()))
        for key, value in entries.items()
    )


def entries_of(model: Model, version: Version, graph: StoredFile, manifest: Mapping[str, Any]) -> dict[str, str]:
    """Entries of metadata for the graph of a version; ``manifest`` is its version.json.

    They depend on the version alone: two exports of it are equal bit by bit.
    """
    return description(
        model=model.name,
        number=version.number,
        tasks=version.tasks,
        transform=manifest["transform"],
        agreement=manifest.get("executable") or {},
        digests={"graph_sha256": graph.sha256, "data_sha256": version.data_digest},
        created_at=version.created_at.isoformat(),
    )


def _field(number: int, content: bytes) -> bytes:
    return bytes((*_varint(number << 3 | _BYTES), *_varint(len(content)))) + content


def _varint(value: int) -> Iterator[int]:
    """Seven bits a byte, the lowest first; the eighth bit says that more follow."""
    while value > 0x7F:
        yield value & 0x7F | 0x80
        value >>= 7
    yield value
