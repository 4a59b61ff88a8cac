"""The kinds of problem: the HTTP status of each domain error, what it means, and what to do about it."""

from dataclasses import dataclass
from http import HTTPStatus

from storage import errors
from storage.errors import AccreteError

# The most specific class wins; what is not named takes the status of its base.
STATUS: dict[type[AccreteError], HTTPStatus] = {
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.Conflict: HTTPStatus.CONFLICT,
    errors.Invalid: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.PreconditionFailed: HTTPStatus.PRECONDITION_FAILED,
    errors.TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.Malformed: HTTPStatus.BAD_REQUEST,
    errors.MediaTypeUnsupported: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.Unauthenticated: HTTPStatus.UNAUTHORIZED,
    errors.Forbidden: HTTPStatus.FORBIDDEN,
    errors.RateLimited: HTTPStatus.TOO_MANY_REQUESTS,
    errors.Overloaded: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.VersionUnloadable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.DeadlineExceeded: HTTPStatus.GATEWAY_TIMEOUT,
    errors.BlobDamaged: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.BlobMissing: HTTPStatus.INTERNAL_SERVER_ERROR,
}

_REMEDIES = {
    HTTPStatus.BAD_REQUEST: "Correct the request: as it is, it will always be refused.",
    HTTPStatus.UNAUTHORIZED: "Send an API key, as `Authorization: Bearer KEY`.",
    HTTPStatus.FORBIDDEN: "Use a key that may do this; the detail says which, and how to get one.",
    HTTPStatus.NOT_FOUND: "Check the name or id: it may be misspelt, or deleted since.",
    HTTPStatus.METHOD_NOT_ALLOWED: "Use one of the methods that the header `Allow` names.",
    HTTPStatus.CONFLICT: "Read in the detail what prevents the request, then decide again.",
    HTTPStatus.PRECONDITION_FAILED: "Read it again, decide again, and repeat the request with the new ETag.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "Send less at a time, or raise the limit by its setting (docs/settings.md).",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "Send the body in one of the forms that the detail names.",
    HTTPStatus.UNPROCESSABLE_ENTITY: "Correct what the detail names: as it is, the request will always be refused.",
    HTTPStatus.TOO_MANY_REQUESTS: "Wait as many seconds as the header `Retry-After` says, then send it again.",
    HTTPStatus.INTERNAL_SERVER_ERROR: "Look into the service's log, for the answer's `X-Request-ID`.",
    HTTPStatus.SERVICE_UNAVAILABLE: "Wait as many seconds as the header `Retry-After` says, then send it again.",
    HTTPStatus.GATEWAY_TIMEOUT: "Ask for less at a time, allow more time, or come again when less is asked for.",
    HTTPStatus.INSUFFICIENT_STORAGE: "Free disk space where the service runs, then send it again.",
}


@dataclass(frozen=True)
class Kind:
    """A type of problem, as its documentation page shows it."""

    status: HTTPStatus
    meaning: str

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return _REMEDIES[self.status]


def status_of(kind: type[AccreteError]) -> HTTPStatus:
    """The HTTP status of a domain error."""
    for base in kind.__mro__:
        if base in STATUS:
            return STATUS[base]
    return HTTPStatus.INTERNAL_SERVER_ERROR


def kebab(name: str) -> str:
    """The name of a class in kebab case, as in the address of a problem."""
    return "".join("-" + letter.lower() if letter.isupper() else letter for letter in name).lstrip("-")


def _kinds() -> dict[str, Kind]:
    """Every type of problem by the last part of its address."""
    found = {
        "bad-request": Kind(HTTPStatus.BAD_REQUEST, "The request cannot be read."),
        "internal": Kind(HTTPStatus.INTERNAL_SERVER_ERROR, "The service failed to answer."),
        "method-not-allowed": Kind(HTTPStatus.METHOD_NOT_ALLOWED, "This path does not support this method."),
        "request-incomplete": Kind(HTTPStatus.BAD_REQUEST, "The request ended before its body was complete."),
        "request-invalid": Kind(HTTPStatus.UNPROCESSABLE_ENTITY, "A field or parameter is missing, unknown or wrong."),
        "storage-full": Kind(
            HTTPStatus.INSUFFICIENT_STORAGE, "The service has no disk space left; nothing was stored."
        ),
        "value-unfit": Kind(HTTPStatus.UNPROCESSABLE_ENTITY, "A value does not fit into the database."),
    }
    waiting = list(AccreteError.__subclasses__())
    while waiting:
        error = waiting.pop()
        waiting += error.__subclasses__()
        if any(base in STATUS for base in error.__mro__):
            found[kebab(error.__name__)] = Kind(status_of(error), " ".join((error.__doc__ or "").split()))
    return dict(sorted(found.items()))


KINDS = _kinds()
