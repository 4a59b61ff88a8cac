"""How many rejects a batch may have: one rule, applied to names on POST and to contents after ingestion."""

from collections.abc import Sequence

from storage.archives.names import printable
from storage.domain import Reject
from storage.errors import BatchInvalid

NAMED = 5  # rejects named in an error
_LETTERS = 120  # characters shown of each name


def check_share(found: Sequence[Reject], *, images: int, limit: float) -> None:
    """Raise `BatchInvalid` if the share of rejects is above ``limit``; ``images`` counts the good files so far."""
    count, files = len(found), len(found) + images
    if count <= limit * files:
        return
    named = [(printable(reject.file)[:_LETTERS], reject.reason) for reject in found[:NAMED]]
    more = f" and {count - NAMED:,} more" if count > NAMED else ""
    raise BatchInvalid(
        f"{count:,} of {files:,} files are not usable, more than the share of {limit:g} that a batch may have: "
        f"{'; '.join(f'{name}: {reason}' for name, reason in named)}{more}. Correct them or leave them out.",
        share=count / files,
        limit=limit,
        examples=[name for name, _ in named],
    )
