"""Small bodies that hold images: raw, multipart or base64 in JSON."""

import base64
import binascii
from typing import Any

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from api.jsonbodies import check_values
from api.schemas.base import in_openapi
from api.schemas.predictions import PredictionIn
from api.uploads import media_type
from storage.errors import ImageUnreadable, Invalid

MAX_FILES = 1000
INLINE_BYTES = 1 << 16  # longer JSON is read beside the event loop
BINARY = {"schema": {"type": "string", "format": "binary"}}
ARCHIVES = dict.fromkeys(
    ("application/zip", "application/x-tar", "application/gzip", "application/octet-stream"), BINARY
)
IMAGES: dict[str, Any] = {  # what `images_of` reads, in OpenAPI's words
    "requestBody": {
        "required": True,
        "content": {
            "image/*": BINARY,
            "application/octet-stream": BINARY,
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"images": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            },
            "application/json": {"schema": in_openapi(PredictionIn)},
        },
    }
}


async def images_of(request: Request) -> list[tuple[str, bytes]]:
    """File name and bytes of every image in a body, in order; raises `Invalid` when there is none.

    ``application/json`` is ``{"images": [base64, …]}``, ``multipart/form-data`` any number of files, and everything
    else one image as it is.
    """
    kind = media_type(request.headers)
    if kind == "application/json":
        body = await request.body()
        files = _from_json(body) if len(body) <= INLINE_BYTES else await run_in_threadpool(_from_json, body)
    elif kind == "multipart/form-data":
        files = await _from_form(request)
    else:
        data = await request.body()
        files = [("image", data)] if data else []
    if not files:
        raise Invalid(
            "The request holds no image: send one as the body, several as multipart files, "
            'or {"images": ["<base64>", …]} as JSON.'
        )
    return files


async def _from_form(request: Request) -> list[tuple[str, bytes]]:
    try:
        async with request.form(max_files=MAX_FILES, max_fields=0) as form:
            parts = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
            return [(part.filename or f"image {i}", await part.read()) for i, part in enumerate(parts)]
    except HTTPException as error:
        raise Invalid(
            f"The multipart body cannot be read ({error.detail}): send each image as a file, as curl -F does."
        ) from error


def _from_json(body: bytes) -> list[tuple[str, bytes]]:
    check_values(body)
    try:
        encoded = PredictionIn.model_validate_json(body).images
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()[:5])
        raise Invalid(f'Expected {{"images": ["<base64>", …]}}: {faults}') from error
    files = []
    for position, text in enumerate(encoded):
        try:
            files.append((f"image {position}", base64.b64decode(text, validate=True)))
        except (binascii.Error, ValueError) as error:
            raise ImageUnreadable(f"Image {position} (counted from 0) is no base64: {error}", image=position) from error
    return files
