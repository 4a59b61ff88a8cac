"""Small pictures of stored images, for ``<img>``: the browser cannot send the API key, and this process can."""

import hashlib
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api.client.connection import ClientError, Problem
from api.dashboard.sessions import Sessions

# What people uploaded is shown as a picture and as nothing else.
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Disposition": 'inline; filename="image.jpg"',
    "Content-Security-Policy": "default-src 'none'; sandbox",
}
DAY = 24 * 3600


def router_of(sessions: Sessions) -> APIRouter:
    """The route of the pictures."""
    router = APIRouter()

    @router.get("/pictures/{image_id}")
    async def picture(image_id: str, request: Request, side: Annotated[int, Query(ge=16, le=512)] = 128) -> Response:
        try:
            content = await sessions.client_of(request).thumbnail(image_id, side=side)
        except ClientError as error:
            return Response(status_code=error.status if isinstance(error, Problem) else 502, headers=HEADERS)
        tag = f'"{hashlib.sha256(content).hexdigest()}"'
        headers = {**HEADERS, "ETag": tag, "Cache-Control": f"private, max-age={DAY}"}
        if request.headers.get("If-None-Match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type="image/jpeg", headers=headers)

    return router
