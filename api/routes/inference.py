"""The Open Inference Protocol, version 2, under /v2, for Triton's clients and the tools of other servers."""

from importlib.metadata import version as release
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from api.bodies import tensors
from api.bodies.images import INLINE_BYTES
from api.bodies.tensors import Question
from api.bodies.whole import whole_body
from api.http.direct_route import Direct
from api.http.guarded_route import Guarded
from api.http.problems import protocol_errors
from api.http.rights import needs
from api.routes import predictions
from api.routes.health import readiness
from api.routes.predictions import recorded
from api.schemas.inference import (
    INPUT,
    OUTPUT,
    ErrorOut,
    IndexEntryOut,
    IndexIn,
    InferOut,
    MetadataOut,
    ModelReadyOut,
    ServerLiveOut,
    ServerOut,
    ServerReadyOut,
    TensorOut,
)
from api.schemas.predictions import Deadline
from api.service import Service, ServiceDep
from api.serving.engine import Answer, within
from api.serving.loading import Served
from storage.database.columns import HIGHEST_INTEGER
from storage.domain import Model, Scope
from storage.errors import Invalid, NoVersionYet, VersionUnloadable
from storage.history import models, versions

router = APIRouter(prefix="/v2", tags=["open inference protocol"], route_class=Guarded)
hot = APIRouter(prefix="/v2", tags=["open inference protocol"], route_class=Direct)
probes = APIRouter(prefix="/v2", tags=["open inference protocol"])

EXTENSIONS = ["binary_tensor_data", "classification", "model_repository"]
INLINE_NUMBERS = 10_000  # of an answer; a longer one is serialised on another thread
RECORDED_CLASSES = 5
FAILURES = protocol_errors(*predictions.FAILURES)
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/InferIn"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
Number = Annotated[int, Path(ge=1, le=HIGHEST_INTEGER, description="Version.")]


@probes.get("/health/live")
async def server_live() -> ServerLiveOut:
    """Tell that the process answers."""
    return ServerLiveOut(live=True)


@probes.get("/health/ready", responses={503: {"model": ServerReadyOut, "description": "Not ready."}})
async def server_ready(response: Response, service: ServiceDep) -> ServerReadyOut:
    """Tell whether requests can be served; /readyz says why not."""
    is_ready, _ = await readiness(service)
    response.status_code = 200 if is_ready else 503
    return ServerReadyOut(ready=is_ready)


@router.get("", dependencies=[needs(Scope.PREDICT, needs_model_in_path=False)], responses=protocol_errors())
async def server_metadata() -> ServerOut:
    """Describe the server."""
    return ServerOut(name="accrete", version=release("accrete"), extensions=EXTENSIONS)


@router.post("/repository/index", dependencies=[needs(Scope.PREDICT)], responses=protocol_errors(Invalid))
def repository_index(service: ServiceDep, body: IndexIn | None = None) -> list[IndexEntryOut]:
    """List every version of every model; each can be asked for, whether or not it is in service."""
    faults = service.engine.registry.faults
    entries = []
    with service.database.read() as connection:
        for model, number in versions.all_numbers(connection):
            reason = faults.get(model.name, "") if number == model.current else ""
            reason = reason or ("" if number is not None else "no version yet")
            state = "UNAVAILABLE" if reason else "READY"
            entries.append(IndexEntryOut(name=model.name, version=str(number or ""), state=state, reason=reason))
    return [entry for entry in entries if entry.state == "READY" or body is None or not body.ready]


@router.get("/models/{name}", dependencies=[needs(Scope.PREDICT)], responses=FAILURES)
async def model_metadata(name: str, request: Request, service: ServiceDep) -> MetadataOut:
    """Describe a model by the version that answers: the one in service, or its stand-in."""
    try:
        served = await _served(service, request, name, None)
    except VersionUnloadable:
        served = None
    return await run_in_threadpool(_metadata, service, name, None, served)


@router.get("/models/{name}/versions/{number}", dependencies=[needs(Scope.PREDICT)], responses=FAILURES)
def version_metadata(name: str, number: Number, service: ServiceDep) -> MetadataOut:
    """Describe a version."""
    return _metadata(service, name, number, None)


@router.get(
    "/models/{name}/ready", dependencies=[needs(Scope.PREDICT)], response_model=ModelReadyOut, responses=FAILURES
)
async def model_ready(name: str, request: Request, service: ServiceDep) -> ModelReadyOut | Response:
    """Tell whether a model has a version that answers, which is loaded if necessary; 404 if it has none."""
    return await _ready(service, request, name, None)


@router.get(
    "/models/{name}/versions/{number}/ready",
    dependencies=[needs(Scope.PREDICT)],
    response_model=ModelReadyOut,
    responses=FAILURES,
)
async def version_ready(name: str, number: Number, request: Request, service: ServiceDep) -> ModelReadyOut | Response:
    """Tell whether a version can be asked; it is loaded if necessary; 404 if it cannot."""
    return await _ready(service, request, name, number)


@hot.post(
    "/models/{name}/infer",
    dependencies=[needs(Scope.PREDICT)],
    openapi_extra=BODY,
    response_model=InferOut,
    responses=FAILURES,
)
async def infer(name: str, request: Request, service: ServiceDep, deadline: Deadline = None) -> Response:
    """Classify images by the version in service: FP32 pixels in 0 … 1, or image files as BYTES."""
    return await _infer(name, None, request, service, deadline)


@hot.post(
    "/models/{name}/versions/{number}/infer",
    dependencies=[needs(Scope.PREDICT)],
    openapi_extra=BODY,
    response_model=InferOut,
    responses=FAILURES,
)
async def infer_by_version(
    name: str, number: Number, request: Request, service: ServiceDep, deadline: Deadline = None
) -> Response:
    """Classify images by a version."""
    return await _infer(name, number, request, service, deadline)


async def _infer(name: str, number: int | None, request: Request, service: Service, deadline: float | None) -> Response:
    arrived_at = request.state.arrived_at
    async with within(service.engine.deadline(arrived_at, deadline)):
        body = await whole_body(request)
    settings = service.settings
    limits = {"max_bytes": settings.max_request_bytes, "max_json_bytes": settings.max_prediction_json_bytes}
    if len(body) <= INLINE_BYTES and "content-encoding" not in request.headers:
        question = tensors.read(body, request.headers, **limits)
    else:
        question = await run_in_threadpool(tensors.read, body, request.headers, **limits)
    given = [seconds for seconds in (deadline, question.seconds) if seconds is not None]
    until = service.engine.deadline(arrived_at, min(given, default=None))
    if question.files is not None:
        answer = await service.engine.predict(name, question.files, version=number, deadline=until)
    else:
        assert question.pixels is not None
        answer = await service.engine.compute(name, question.pixels, version=number, deadline=until)
    record = await recorded(
        service,
        answer,
        answer.ranked(RECORDED_CLASSES),
        images=question.files,
        reference=question.reference,
        durable=False,
        keeps_images=predictions.keeps_images(service, name, answer),
    )
    accepted = request.headers.get("accept-encoding", "")
    if len(answer.probabilities) * len(answer.labels) <= INLINE_NUMBERS:
        content, length, encoding = _written(question, answer, name, record, accepted)
    else:
        content, length, encoding = await run_in_threadpool(_written, question, answer, name, record, accepted)
    headers = {} if length is None else {tensors.HEADER: str(length)}
    if encoding is not None:
        headers |= {"Content-Encoding": encoding, "Vary": "Accept-Encoding"}
    return Response(
        content, headers=headers, media_type="application/json" if length is None else "application/octet-stream"
    )


def _written(
    question: Question, answer: Answer, name: str, record: str | None, accepted: str
) -> tuple[bytes, int | None, str | None]:
    """Body of an answer, bytes of its JSON (None if no tensor follows), and content encoding (or None)."""
    content, length = tensors.written(question, answer, model=name, record=record)
    content, encoding = tensors.compressed(content, accepted)
    return content, length, encoding


async def _served(service: Service, request: Request, name: str, number: int | None) -> Served:
    """The version that answers for a model, or the given one; raises `VersionUnloadable` if none of them loads."""
    return await service.engine.served(name, number, service.engine.deadline(request.state.arrived_at, None))


async def _ready(service: Service, request: Request, name: str, number: int | None) -> ModelReadyOut | Response:
    """The protocol's answer: 200 if ready, else a 4xx status, here 404 with the reason added."""
    try:
        await _served(service, request, name, number)
    except VersionUnloadable as error:
        unready = ModelReadyOut(name=name, ready=False).model_dump() | ErrorOut(error=error.detail).model_dump()
        return JSONResponse(unready, status_code=404)
    return ModelReadyOut(name=name, ready=True)


def _metadata(service: Service, name: str, number: int | None, served: Served | None) -> MetadataOut:
    with service.database.read() as connection:
        model: Model = models.get(connection, name)
        if number is None:
            number = served.number if served is not None and served.model.id == model.id else model.current
        if number is None:
            raise NoVersionYet(f"Model {name!r} has no version yet.")
        version = versions.get(connection, model, number)
        numbers = versions.numbers(connection, model)
    labels = list(model.names.all(version.classes))
    size = model.image_size
    return MetadataOut(
        name=name,
        versions=[str(one) for one in numbers],
        platform="onnxruntime_onnx",
        inputs=[TensorOut(name=INPUT, datatype="FP32", shape=[-1, model.channels, size, size])],
        outputs=[TensorOut(name=OUTPUT, datatype="FP32", shape=[-1, len(labels)])],
        parameters={"labels": labels},
    )
