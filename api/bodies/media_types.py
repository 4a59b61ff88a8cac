"""Which media types a route takes, from the OpenAPI description of its body; other types are answered with 415."""

from collections.abc import Collection
from typing import Any

from starlette.datastructures import Headers

from storage.errors import MediaTypeUnsupported

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
# Other names that people's tools give to archives: Windows, curl's and Python's tables of types, file(1), IANA.
ALSO_ARCHIVES = frozenset({
    "application/bzip2",
    "application/gzip",
    "application/tar",
    "application/tar+gzip",
    "application/x-bzip",
    "application/x-bzip2",
    "application/x-compressed",
    "application/x-compressed-tar",
    "application/x-gtar",
    "application/x-gzip",
    "application/x-tgz",
    "application/x-xz",
    "application/x-zip",
    "application/x-zip-compressed",
    "application/zstd",
    "binary/octet-stream",
})  # fmt: skip
_HINTS = {FORM: " (what curl -d and --data-binary say unless told otherwise)"}


def media_type(headers: Headers) -> str:
    """The content type without its parameters, in lower case."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def of_route(openapi_extra: dict[str, Any] | None, *, is_json: bool) -> Collection[str]:
    """The media types that a route takes; empty if it takes no body. ``is_json``: FastAPI parses its body as JSON."""
    described = (openapi_extra or {}).get("requestBody", {}).get("content", {})
    return tuple(described) or ((JSON,) if is_json else ())


def check(headers: Headers, taken: Collection[str], *, is_json: bool = False) -> None:
    """Raise `MediaTypeUnsupported` for a body whose media type is not among ``taken``.

    A body without a Content-Type is accepted, unless the route takes JSON.
    """
    kind = media_type(headers)
    if kind in taken or (not kind and not is_json) or not taken:
        return
    if "application/zip" in taken and kind in ALSO_ARCHIVES:
        return
    if ("image/*" in taken and kind.startswith("image/")) or (is_json and kind.endswith("+json")):
        return
    called = f"A body of {kind[:100]!r}{_HINTS.get(kind, '')}" if kind else "A body without a Content-Type"
    example = next(iter(taken)).replace("image/*", "image/png")
    raise MediaTypeUnsupported(
        f"{called} is not taken here: send {', '.join(taken)}, as with -H 'Content-Type: {example}'.",
        accepted=list(taken),
    )
