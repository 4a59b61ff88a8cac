"""Small bodies that hold images: raw, multipart or base64 in JSON."""

from collections.abc import Mapping
from typing import Any, TypeVar

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from api.bodies import base64text
from api.bodies.json_bodies import check_values
from api.bodies.media_types import media_type
from api.bodies.whole import whole_body
from api.schemas.base import in_openapi
from api.schemas.predictions import ImagesIn
from storage.errors import ImageUnreadable, Invalid

Asked = TypeVar("Asked", bound=ImagesIn)

MAX_FILES = 1000
MAX_FIELDS = 32
INLINE_BYTES = 1 << 16  # longer JSON is parsed on a thread, off the event loop
BINARY = {"schema": {"type": "string", "format": "binary"}}
ARCHIVES = dict.fromkeys(
    ("application/zip", "application/x-tar", "application/gzip", "application/octet-stream"), BINARY
)


def images_body(kind: type[ImagesIn]) -> dict[str, Any]:
    """The OpenAPI description of the bodies that `images_of` reads."""
    schema = in_openapi(kind)
    beside = {name: of for name, of in schema["properties"].items() if name != "images"}
    files = {"images": {"type": "array", "items": {"type": "string", "format": "binary"}}}
    return {
        "requestBody": {
            "required": True,
            "content": {
                "image/*": BINARY,
                "application/octet-stream": BINARY,
                "multipart/form-data": {"schema": {"type": "object", "properties": files | beside}},
                "application/json": {"schema": schema},
            },
        }
    }


async def images_of(request: Request, kind: type[Asked]) -> tuple[list[tuple[str, bytes]], Asked]:
    """File name and bytes of every image in a body, in order, and the other members of the request.

    A body of ``application/json`` is parsed as ``kind``. A body of ``multipart/form-data`` holds any number of files,
    and the other members of ``kind`` as text fields. Any other body is one image. The query is not read here (`above`).
    Raises `Invalid` if there is no image or a member is wrong, and `ImageUnreadable` for wrong base64.
    """
    media = media_type(request.headers)
    if media == "application/json":
        body = await whole_body(request)
        is_short = len(body) <= INLINE_BYTES
        files, asked = _from_json(body, kind) if is_short else await run_in_threadpool(_from_json, body, kind)
    elif media == "multipart/form-data":
        files, asked = await _from_form(request, kind)
    else:
        data = await whole_body(request)
        files, asked = [("image", data)] if data else [], _asked(kind, {})
    if not files:
        raise Invalid(
            "The request holds no image: send one as the body, several as multipart files, "
            'or {"images": ["<base64>", …]} as JSON.'
        )
    return files, asked


def above(asked: Asked, request: Request, **query: Any) -> Asked:
    """The members of the body, replaced by those that the query names; ``query`` holds their validated values."""
    return asked.model_copy(update={name: value for name, value in query.items() if name in request.query_params})


async def _from_form(request: Request, kind: type[Asked]) -> tuple[list[tuple[str, bytes]], Asked]:
    files: list[tuple[str, bytes]] = []
    fields: dict[str, str] = {}
    try:
        async with request.form(max_files=MAX_FILES, max_fields=MAX_FIELDS) as form:
            for name, part in form.multi_items():
                if isinstance(part, UploadFile):
                    files.append((part.filename or f"image {len(files)}", await part.read()))
                elif name in fields:
                    raise Invalid(f"Form field {name[:100]!r} was given more than once: say which one is meant.")
                else:
                    fields[name] = part
    except HTTPException as error:
        raise Invalid(
            f"The multipart body cannot be read ({error.detail}): send each image as a file, as curl -F does."
        ) from error
    return files, _asked(kind, fields)


def _asked(kind: type[Asked], fields: Mapping[str, str]) -> Asked:
    """The members other than the images, parsed from text."""
    known = [name for name in kind.model_fields if name != "images"]
    if unknown := [name for name in fields if name not in known]:
        raise Invalid(
            f"Unknown form field {', '.join(repr(name[:100]) for name in unknown[:5])}: known are {', '.join(known)}. "
            "Send an image as a file, as curl -F image=@a.png does."
        )
    try:
        return kind.model_validate({"images": [""], **fields})
    except ValidationError as error:
        raise Invalid(f"The form's fields are not as they should be: {_faults(error)}") from error


def _from_json(body: bytes, kind: type[Asked]) -> tuple[list[tuple[str, bytes]], Asked]:
    check_values(body)
    try:
        asked = kind.model_validate_json(body)
    except ValidationError as error:
        raise Invalid(f'Expected {{"images": ["<base64>", …]}}: {_faults(error)}') from error
    files = []
    for position, text in enumerate(asked.images):
        try:
            files.append((f"image {position}", base64text.decoded(text)))
        except ValueError as error:
            raise ImageUnreadable(f"Image {position} (counted from 0) is no base64: {error}", image=position) from error
    return files, asked.model_copy(update={"images": []})


def _faults(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()[:5])
