"""Uploads: of batches, each piece going on to the API before the next one is taken; and of an image to try."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from api.client.asynchronous.sending import BatchStream
from api.client.connection import ClientError, Problem
from api.dashboard.sessions import Sessions

MOST_BYTES = 10_000_000  # of an image that is tried
TOP = 5  # classes that are shown of it


def router_of(sessions: Sessions) -> APIRouter:
    """The route of the uploads."""
    router = APIRouter()

    @router.post("/uploads/{model}")
    async def upload(model: str, request: Request) -> Response:
        length = request.headers.get("Content-Length")
        source = BatchStream(
            request.stream(),
            content_type=request.headers.get("Content-Type", "application/x-tar"),
            length=int(length) if length is not None else None,
        )
        try:
            batch = await sessions.client_of(request).create_batch(model, source)
        except ClientDisconnect:  # cancelled in the browser: the API has seen its upload break off, and keeps nothing
            return Response(status_code=499)
        except ClientError as error:
            status = error.status if isinstance(error, Problem) else 502
            return JSONResponse({"detail": str(error)}, status_code=status)
        return JSONResponse({"id": batch["id"]}, status_code=201)

    @router.post("/tries/{model}")
    async def attempt(model: str, request: Request, beside: int | None = None) -> Response:
        client = sessions.client_of(request)
        content = bytearray()
        async for piece in request.stream():
            content += piece
            if len(content) > MOST_BYTES:
                return JSONResponse({"detail": f"An image of at most {MOST_BYTES // 10**6} MB can be tried."}, 413)
        try:
            versions = (None,) if beside is None else (None, beside)
            found = [await client.predict(model, [bytes(content)], top_k=TOP, version=one) for one in versions]
        except ClientError as error:
            return JSONResponse({"detail": str(error)}, error.status if isinstance(error, Problem) else 502)
        return JSONResponse([{"version": one["version"], "ranked": one["predictions"][0]} for one in found])

    return router
