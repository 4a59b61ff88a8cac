"""The Open Inference Protocol, version 2: https://github.com/open-inference/open-inference-protocol, REST."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

INPUT, OUTPUT = "image", "probabilities"  # names of the tensors
Json = dict[str, Any]


class ErrorOut(BaseModel):
    """The body of every error of /v2."""

    error: str


class ServerOut(BaseModel):
    """Server metadata."""

    name: str
    version: str
    extensions: list[str]


class ServerLiveOut(BaseModel):
    """Whether the process answers."""

    live: bool


class ServerReadyOut(BaseModel):
    """Whether requests can be served."""

    ready: bool


class ModelReadyOut(BaseModel):
    """Whether a model, or a version of it, can be asked."""

    name: str
    ready: bool


class TensorOut(BaseModel):
    """A tensor's metadata; -1 is a dimension of any size."""

    name: str
    datatype: str
    shape: list[int]


class MetadataOut(BaseModel):
    """Model metadata; ``parameters.labels`` names the classes in the order of the probabilities."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorOut]
    outputs: list[TensorOut]
    parameters: dict[str, list[str]]


class IndexIn(BaseModel):
    """A request for the repository index."""

    model_config = ConfigDict(extra="ignore")

    ready: bool = False


class IndexEntryOut(BaseModel):
    """A version of a model, and whether it can be asked."""

    name: str
    version: str
    state: str
    reason: str


class _Member(BaseModel):
    """Base of the protocol's objects: unknown members are ignored, as the protocol's extensions require."""

    model_config = ConfigDict(extra="ignore", strict=True)


class InputParameters(_Member):
    """Parameters of an input: its size in bytes, if its data follow the JSON (binary tensor data extension)."""

    binary_data_size: Annotated[int, Field(ge=0)] | None = None


class InputIn(_Member):
    """The images: FP32 [n, channels, size, size] in 0 … 1, or BYTES [n] of image files (base64 where in JSON)."""

    name: str
    shape: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=8)]
    datatype: str
    parameters: InputParameters = InputParameters()
    data: list[Any] | None = None


class OutputParameters(_Member):
    """Parameters of an output: only the best classes (classification extension), and whether it follows the JSON."""

    classification: Annotated[int, Field(ge=0)] = 0
    binary_data: bool | None = None


class OutputIn(_Member):
    """An output that is asked for."""

    name: str
    parameters: OutputParameters = OutputParameters()


class InferParameters(_Member):
    """Parameters of a request: how outputs are sent, and how long the answer may take."""

    binary_data_output: bool = False
    timeout: Annotated[int, Field(gt=0, description="Microseconds.")] | None = None


class InferIn(_Member):
    """An inference request."""

    id: Annotated[str, Field(max_length=1000)] | None = None
    parameters: InferParameters = InferParameters()
    inputs: Annotated[list[InputIn], Field(min_length=1, max_length=1)]
    outputs: Annotated[list[OutputIn], Field(max_length=1)] | None = None


class InferTensorOut(BaseModel):
    """An output; without ``data``, its bytes follow the JSON."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, int] | None = None
    data: list[float] | list[str] | None = None


class InferOut(BaseModel):
    """An inference response; ``parameters.record`` is the id of the prediction's record, where one is kept."""

    model_name: str
    model_version: str
    id: str | None = None
    parameters: dict[str, str] | None = None
    outputs: list[InferTensorOut]
