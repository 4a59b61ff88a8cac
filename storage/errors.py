"""The errors of the domain; `api.http.problems` maps each of them to an HTTP response.

Every message says what is wrong and what to do about it, because the person who sent the request reads it.
"""

from collections.abc import Mapping
from typing import Any


class AccreteError(Exception):
    """Base of all errors a caller can act on; ``extra`` goes into the problem document beside the detail."""

    def __init__(self, detail: str, **extra: Any) -> None:
        """Keep the detail (for people) and the further members (for programs)."""
        super().__init__(detail)
        self.detail = detail
        self.extra: Mapping[str, Any] = extra


class NotFound(AccreteError):
    """Something named in the request does not exist."""


class ModelNotFound(NotFound):
    """No model of that name."""


class BatchNotFound(NotFound):
    """No batch of that id."""


class ImageNotFound(NotFound):
    """No image of that id."""


class ClassNotFound(NotFound):
    """The model has no class of that name."""


class IncrementNotFound(NotFound):
    """No increment of that id."""


class VersionNotFound(NotFound):
    """The model has no version of that number."""


class KeyNotFound(NotFound):
    """No API key of that id or name."""


class PredictionNotFound(NotFound):
    """No prediction record of that id."""


class Conflict(AccreteError):
    """The request contradicts the state of things."""


class ModelExists(Conflict):
    """The name is taken."""


class ModelBusy(Conflict):
    """The model has increments that are not finished."""


class ClassesAlreadyKnown(Conflict):
    """The batch holds classes the head, or a queued increment, already has."""


class ClassNameTaken(Conflict):
    """The name is that of another class, or was until that class was renamed."""


class IncrementNotCancellable(Conflict):
    """The increment is finished."""


class IncrementNotRetryable(Conflict):
    """Only failed and cancelled increments can be tried again."""


class NoVersionYet(Conflict):
    """The model has nothing to predict with."""


class VersionUnfit(Conflict):
    """The version cannot be put into service: it does not load, or does not compute."""


class VersionInUse(Conflict):
    """The version is current or head."""


class BatchClosed(Conflict):
    """The batch takes no more images, or belongs to an increment already."""


class BatchInUse(Conflict):
    """An increment learns from the batch, or will."""


class JustDeleted(Conflict):
    """The same bytes were deleted in the very moment they were sent again."""


class PreconditionFailed(AccreteError):
    """``If-Match`` names a state that is no longer so."""


class Invalid(AccreteError):
    """The request can never succeed as it is."""


class UnknownStrategy(Invalid):
    """No strategy of that name."""


class StrategyUnfit(Invalid):
    """The strategy cannot work on this model: its network, its kind of heads or what it keeps."""


class UnknownNetwork(Invalid):
    """No network of that name."""


class RecipeInvalid(Invalid):
    """A hyper-parameter is unknown or out of range."""


class NothingToLearn(Invalid):
    """No class at all, a single new one beside nothing, or known ones alone while others cannot be shown."""


class BatchInvalid(Invalid):
    """The images cannot make an increment: too few, too many, badly labelled, too many unreadable."""


class EditInvalid(Invalid):
    """The edit does not fit the classes of the version."""


class ArchiveUnreadable(Invalid):
    """The upload is no zip or tar archive, or a damaged one."""


class ArchiveUnsafe(Invalid):
    """The archive holds a member that could do harm; all of it is refused."""


class ImageUnreadable(Invalid):
    """The bytes are no image this service reads."""


class IdempotencyMismatch(Invalid):
    """The idempotency key was used with another request."""


class Unauthenticated(AccreteError):
    """The request brings no key, or one that is not good."""


class Forbidden(AccreteError):
    """The key is good, but not for this."""


class RateLimited(AccreteError):
    """The key has asked too often; ``retry_after`` says when it may again."""


class Overloaded(AccreteError):
    """Too much is waiting already; ``retry_after`` says when to come again."""


class VersionUnloadable(AccreteError):
    """The version that should answer does not load, nor any before it; ``retry_after`` says when it is tried again."""


class DeadlineExceeded(AccreteError):
    """The time that the request may take is over."""


class TooLarge(AccreteError):
    """A body, archive or image crosses a limit."""


class Malformed(AccreteError):
    """The request breaks the rules of HTTP itself."""


class MediaTypeUnsupported(AccreteError):
    """The body comes in a form that the route does not take."""


class BackupUnfit(AccreteError):
    """A backup cannot be written, or is none that could be restored here."""


class BlobDamaged(AccreteError):
    """Stored bytes do not match their checksum."""


class BlobMissing(AccreteError):
    """Stored bytes are not there."""
