"""Additions to each operation of the OpenAPI document: the scope it needs, response headers, and every status."""

from typing import Any

from api.http.problems import MEDIA_TYPE, SCHEMA, is_protocol

Json = dict[str, Any]

WITH_LOCATION = {"create_model": "the model", "create_batch": "the batch", "request_increment": "the increment"}
WITH_ETAG = {"get_image", "get_version_file", "get_model_metrics_picture", "get_current", "promote"}
TAGS = [
    {"name": "models", "description": "Named classifiers and their defaults."},
    {"name": "batches", "description": "Labelled images, collected to learn from."},
    {"name": "images", "description": "Stored images: get, predict and erase them."},
    {"name": "increments", "description": "Teach new classes, follow how far it is, stop it, try again."},
    {"name": "versions", "description": "Trained networks: metrics, files, and which one is in service."},
    {"name": "predictions", "description": "Classify images, and read back what was said."},
    {"name": "strategies", "description": "What an increment can optimise."},
    {"name": "open inference protocol", "description": "What Triton's and KServe's clients speak."},
    {"name": "audit", "description": "Who asked for which change."},
    {"name": "probes", "description": "Liveness, readiness and metrics; the first two need no key."},
    {"name": "problems", "description": "Pages that explain the types of errors; they need no key."},
]
_INSUFFICIENT, _FAILED, _UNAVAILABLE = "507", "500", "503"
_ERRORS = {
    _FAILED: "The service failed to answer; its log says why.",
    _UNAVAILABLE: "Too much is waiting already, or a part of the service is unavailable.",
    _INSUFFICIENT: "No disk space is left.",
}


def complete(method: str, path: str, operation: Json) -> None:
    """Add to an operation, in place, the scope, statuses and headers that operations of its kind have."""
    responses: Json = operation["responses"]
    needed = [scope for one in operation.get("security", ()) for scopes in one.values() for scope in scopes]
    if needed:
        operation["description"] += f"\n\nNeeds a key of scope `{needed[0]}`."
        for status in (_FAILED, _UNAVAILABLE) if method == "get" or path.startswith("/v2") else _ERRORS:
            responses.setdefault(status, _error(path, _ERRORS[status]))
    if "requestBody" not in operation:
        for status in ("413", "415"):
            responses.pop(status, None)
    if operation["operationId"] in WITH_ETAG and method == "get":
        responses["304"] = {"description": "If-None-Match names what would be sent."}
        responses["412"] = _error(path, "If-Match does not name what would be sent.")
    for status, response in responses.items():
        response["headers"] = response.get("headers", {}) | _headers(operation["operationId"], status)
    operation["responses"] = dict(sorted(responses.items()))


def _error(path: str, description: str) -> Json:
    if is_protocol(path):
        content: Json = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorOut"}}}
    else:
        content = {MEDIA_TYPE: SCHEMA}
    return {"description": description, "content": content}


def _headers(operation: str, status: str) -> Json:
    """Headers that an answer of this status has."""
    found = {"X-Request-ID": _header("Id of the request, its own or a new one; logs have it too.", "4afc60ee7aa145a9")}
    if status in {"201", "202"} and operation in WITH_LOCATION:
        found["Location"] = _header(f"Path of {WITH_LOCATION[operation]}.", "/v1/models/plants")
    if status in {"200", "304"} and operation in WITH_ETAG:
        found["ETag"] = _header("Names what was sent, for If-Match and If-None-Match.", '"7"')
    if status in {"429", _UNAVAILABLE}:
        found["Retry-After"] = _header("Seconds to wait before the next try.", "1")
    if status == "401":
        found["WWW-Authenticate"] = _header("How to show who is asking.", "Bearer")
    return found


def _header(description: str, example: str) -> Json:
    return {"description": description, "schema": {"type": "string", "examples": [example]}}
