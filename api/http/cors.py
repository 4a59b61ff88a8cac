"""Which web pages may call the service from a browser (CORS, the Fetch standard's §3.3)."""

from collections.abc import Sequence

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
EXPOSED = (
    "Content-Encoding",
    "ETag",
    "Inference-Header-Content-Length",
    "Location",
    "Retry-After",
    "WWW-Authenticate",
    "X-Request-ID",
)


def install(app: FastAPI, origins: Sequence[str]) -> None:
    """Answer preflight requests, which have no key, and let the pages of ``origins`` read every answer.

    A page authenticates by a key, not by a cookie. So browsers need not send credentials, and CORS leaves them off.
    """
    app.add_middleware(
        CORSMiddleware, allow_origins=origins, allow_methods=METHODS, allow_headers=["*"], expose_headers=EXPOSED
    )
