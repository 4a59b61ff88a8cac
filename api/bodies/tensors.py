"""Bodies of the Open Inference Protocol: JSON, optionally followed by binary tensors, optionally compressed."""

import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from pydantic_core import from_json

from api.bodies import base64text
from api.bodies.json_bodies import check_values
from api.schemas.inference import INPUT, OUTPUT, InferIn, InferOut, InferTensorOut, InputIn, OutputParameters
from api.schemas.predictions import REFERENCE
from api.serving.engine import Answer
from storage.errors import Invalid, TooLarge

HEADER = "Inference-Header-Content-Length"  # bytes of the JSON, where tensors follow it
WINDOWS = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}  # zlib's formats of RFC 9110 §8.4.1
LEAST_COMPRESSED = 1024  # bytes; a shorter answer would not get shorter
FASTEST = 1  # zlib's level
ROUNDING = 1e-3  # how far a pixel may lie outside of 0 … 1; a quarter of the step of 8 bits
RANK = 4  # images, channels, height, width
MAX_NUMBERS = 1_000_000  # in JSON; each takes forty bytes of memory once parsed


@dataclass(frozen=True, eq=False)
class Question:
    """A parsed inference request: image files, or pixels as float32 [images, channels, height, width]."""

    asked: InferIn
    files: list[bytes] | None
    pixels: NDArray[np.float32] | None

    @property
    def seconds(self) -> float | None:
        """The time limit that the request names, in seconds; None if it names none."""
        timeout = self.asked.parameters.timeout
        return None if timeout is None else timeout / 1e6

    @property
    def reference(self) -> str | None:
        """The caller's id of the request, for its record; None if there is none, or none that a record takes."""
        given = self.asked.id
        return given if given is not None and re.fullmatch(REFERENCE, given) else None


def read(body: bytes, headers: Mapping[str, str], *, max_bytes: int, max_json_bytes: int) -> Question:
    """Parse a request.

    Raises `Invalid`, and `TooLarge` if the unpacked body exceeds ``max_bytes`` or its JSON ``max_json_bytes``.
    """
    most = max_bytes if HEADER.lower() in headers else min(max_bytes, max_json_bytes)
    body = decompressed(body, headers.get("content-encoding", "identity"), max_bytes=most)
    document, tensors = _parts(body, headers.get(HEADER.lower()))
    asked = _asked(document, max_json_bytes)
    if asked.outputs and asked.outputs[0].name != OUTPUT:
        raise Invalid(f"There is no output {asked.outputs[0].name[:100]!r}: ask for {OUTPUT!r}.")
    given = asked.inputs[0]
    if given.name != INPUT:
        raise Invalid(f"There is no input {given.name[:100]!r}: send {INPUT!r}.")
    binary = _binary(given, tensors)
    if given.datatype == "BYTES":
        return Question(asked, _files(given, binary), None)
    if given.datatype == "FP32":
        return Question(asked, None, _pixels(given, binary))
    raise Invalid(f"Datatype {given.datatype[:100]!r} is not taken: send {INPUT!r} as FP32 or BYTES.")


def written(question: Question, answer: Answer, *, model: str, record: str | None) -> tuple[bytes, int | None]:
    """The body of an answer, and the length of its JSON in bytes; None if no binary tensor follows."""
    asked = question.asked
    parameters = asked.outputs[0].parameters if asked.outputs else OutputParameters()
    is_binary = parameters.binary_data
    if is_binary is None:
        is_binary = asked.parameters.binary_data_output
    tensor, binary = _output(answer, parameters.classification, binary=is_binary)
    document = InferOut(
        model_name=model,
        model_version=str(answer.version),
        id=asked.id,
        parameters=None if record is None else {"record": record},
        outputs=[tensor],
    )
    text = document.model_dump_json(exclude_none=True).encode()
    return (text + binary, len(text)) if is_binary else (text, None)


def decompressed(body: bytes, encoding: str, *, max_bytes: int) -> bytes:
    """The body without its Content-Encoding.

    Raises `Invalid`, and `TooLarge` beyond ``max_bytes``: the rest is not unpacked.
    """
    encoding = encoding.strip().lower()
    if encoding in {"", "identity"}:
        return body
    if encoding not in WINDOWS:
        raise Invalid(f"Content-Encoding {encoding[:100]!r} is not taken: send gzip, deflate or none.")
    try:
        unpacker = zlib.decompressobj(WINDOWS[encoding])
        plain = unpacker.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise Invalid(f"The body is no {encoding}: {error}.") from error
    if len(plain) > max_bytes:
        raise TooLarge(f"The body unpacks to more than the {max_bytes:,} bytes allowed here.", limit=max_bytes)
    if not unpacker.eof:
        raise Invalid(f"The {encoding} body ends too early.")
    if unpacker.unused_data:
        raise Invalid(f"Something follows the {encoding} body.")
    return plain


def compressed(body: bytes, accepted: str) -> tuple[bytes, str | None]:
    """The body in a coding that the client accepts, and the coding's name; a short body unchanged, and None.

    ``accepted`` is the header Accept-Encoding.
    """
    weights = {}
    for choice in accepted.lower().split(","):
        name, _, weight = choice.partition(";")
        weights[name.strip()] = weight.strip().replace(" ", "")
    for name, window in WINDOWS.items():
        if len(body) >= LEAST_COMPRESSED and name in weights and weights[name] not in {"q=0", "q=0.0", "q=0.00"}:
            packer = zlib.compressobj(FASTEST, zlib.DEFLATED, window)
            return packer.compress(body) + packer.flush(), name
    return body, None


def _asked(document: bytes, max_bytes: int) -> InferIn:
    if len(document) > max_bytes:
        raise TooLarge(f"The JSON is larger than {max_bytes:,} bytes: send the tensor in binary.", limit=max_bytes)
    check_values(document, most=MAX_NUMBERS)
    try:  # in two steps, which take half the memory of one
        return InferIn.model_validate(from_json(document))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()[:5])
        raise Invalid(f"The inference request cannot be read: {faults}") from error
    except ValueError as error:
        raise Invalid(f"The inference request cannot be read as JSON: {error}.") from error


def _parts(body: bytes, length: str | None) -> tuple[bytes, memoryview]:
    if length is None:
        return body, memoryview(b"")
    if not (length.isascii() and length.isdecimal() and len(length) <= len(str(len(body)))) or int(length) > len(body):
        raise Invalid(f"{HEADER} {length[:100]!r} is no length within the body of {len(body):,} bytes.")
    return body[: int(length)], memoryview(body)[int(length) :]


def _binary(given: InputIn, tensors: memoryview) -> memoryview | None:
    """The binary data of the only input, None if its data is in the JSON."""
    size = given.parameters.binary_data_size
    if (size is None) == (given.data is None):
        raise Invalid(f"Input {INPUT!r} needs either data or the parameter binary_data_size.")
    if (size or 0) != len(tensors):
        raise Invalid(f"{len(tensors):,} bytes follow the JSON, binary_data_size says {size or 0:,}.")
    return None if size is None else tensors


def _files(given: InputIn, binary: memoryview | None) -> list[bytes]:
    """Image files of a BYTES tensor."""
    files = _from_base64(given.data or []) if binary is None else _from_binary(binary)
    if len(files) != math.prod(given.shape) or not given.shape:
        raise Invalid(f"Input {INPUT!r} has shape {given.shape}, and {len(files)} elements.")
    return files


def _from_base64(data: Sequence[object]) -> list[bytes]:
    files = []
    for position, text in enumerate(data):
        if not isinstance(text, str):
            raise Invalid(f"Element {position} of {INPUT!r} is no text: BYTES in JSON are base64.")
        try:
            files.append(base64text.decoded(text))
        except ValueError as error:
            raise Invalid(f"Element {position} of {INPUT!r} is no base64: {error}") from error
    return files


def _from_binary(binary: memoryview) -> list[bytes]:
    """Split the data into elements; each follows its length, which takes 4 bytes, little-endian."""
    files: list[bytes] = []
    start = 0
    while start < len(binary):
        length = int.from_bytes(binary[start : start + 4], "little")
        end = start + 4 + length
        if end > len(binary):
            raise Invalid(f"Element {len(files)} of {INPUT!r} ends behind the body.")
        files.append(bytes(binary[start + 4 : end]))
        start = end
    return files


def _pixels(given: InputIn, binary: memoryview | None) -> NDArray[np.float32]:
    """Pixels of an FP32 tensor, [images, channels, height, width].

    Raises `Invalid` if their number does not match the shape, or a value is not a number in 0 … 1.
    """
    if len(given.shape) != RANK:
        raise Invalid(f"Input {INPUT!r} has shape {given.shape}: [images, channels, height, width] is wanted.")
    count = math.prod(given.shape)
    if binary is None:
        pixels = _from_numbers(given.data or [])
    elif len(binary) == count * np.dtype(np.float32).itemsize:
        pixels = np.frombuffer(binary, "<f4").astype(np.float32) if count else np.empty(0, np.float32)
    else:
        raise Invalid(f"Shape {given.shape} of FP32 is {4 * count:,} bytes, but {len(binary):,} were sent.")
    if pixels.size != count:
        raise Invalid(f"Input {INPUT!r} has shape {given.shape}, and {pixels.size:,} elements.")
    if not bool(np.isfinite(pixels).all()):
        raise Invalid(f"Input {INPUT!r} holds NaN or infinity: pixels are numbers in 0 … 1.")
    if pixels.size and not -ROUNDING <= (least := float(pixels.min())) <= float(pixels.max()) <= 1 + ROUNDING:
        raise Invalid(
            f"Input {INPUT!r} holds values from {least:g} to {float(pixels.max()):g}: pixels are numbers in 0 … 1, "
            "those of an image file divided by 255 and not normalised."
        )
    return pixels.reshape(given.shape)


def _from_numbers(data: Sequence[object]) -> NDArray[np.float32]:
    """A flat float32 array of a list of numbers, or of nested lists."""
    try:
        numbers = np.asarray(data) if data else np.empty(0, np.float32)
    except ValueError as error:
        raise Invalid(f"The data of {INPUT!r} are no regular lists of numbers.") from error
    if numbers.dtype.kind not in "iuf":
        raise Invalid(f"The data of {INPUT!r} are no regular lists of numbers.")
    with np.errstate(over="ignore"):  # a number too large for float32 becomes infinite, and is refused as such
        return numbers.astype(np.float32).reshape(-1)


def _output(answer: Answer, classes: int, *, binary: bool) -> tuple[InferTensorOut, bytes]:
    """The tensor of an answer, and its bytes where it is sent in binary."""
    if classes:
        return _classified(answer, classes, binary=binary)
    probabilities = answer.probabilities
    shape = list(probabilities.shape)
    if not binary:
        return InferTensorOut(name=OUTPUT, datatype="FP32", shape=shape, data=probabilities.flatten().tolist()), b""
    data = probabilities.astype("<f4").tobytes()
    described = {"binary_data_size": len(data)}
    return InferTensorOut(name=OUTPUT, datatype="FP32", shape=shape, parameters=described), data


def _classified(answer: Answer, classes: int, *, binary: bool) -> tuple[InferTensorOut, bytes]:
    """The best classes as ``probability:index:label``."""
    index = {label: position for position, label in enumerate(answer.labels)}
    rows = [[f"{p:f}:{index[label]}:{label}" for label, p in row] for row in answer.ranked(classes)]
    shape, data = [len(rows), len(rows[0])], [text for row in rows for text in row]
    if not binary:
        return InferTensorOut(name=OUTPUT, datatype="BYTES", shape=shape, data=data), b""
    elements = [text.encode() for text in data]
    packed = b"".join(len(element).to_bytes(4, "little") + element for element in elements)
    described = {"binary_data_size": len(packed)}
    return InferTensorOut(name=OUTPUT, datatype="BYTES", shape=shape, parameters=described), packed
