"""Claims on increments: made by a conditional UPDATE, held by a lease, fenced by the attempt's number.

The row decides, and a message only wakes a worker up (DESIGN, Life of an increment). Every statement that a worker
sends about its increment names its attempt. If another worker has claimed the increment since, no row matches, and so
the first worker learns that it has lost its claim. Only `storage.database.clock` says when a lease expires.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, exists, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from storage import safetext
from storage.database import locks, rows
from storage.database.clock import moment
from storage.database.tables import attempts, increments
from storage.database.tables import models as models_table
from storage.domain import Increment, IncrementStatus, now
from storage.work import events

LEASE_LOST = "the worker stopped renewing its lease: it was killed, or cut off from the database"


class ClaimLost(Exception):
    """Another worker holds the increment now, or it was deleted: nothing more may be written."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on an increment until its lease expires without renewal."""

    increment_id: str
    attempt: int

    @property
    def row(self) -> ColumnElement[bool]:
        """The condition that selects the increment's row, as long as this claim holds."""
        return and_(
            increments.c.id == self.increment_id,
            increments.c.attempt == self.attempt,
            increments.c.status == IncrementStatus.RUNNING,
        )


def runnable(connection: Connection, *, limit: int = 100) -> tuple[Increment, ...]:
    """Increments that could be worked on now, in order of arrival.

    At most one of each model: the running one if its lease has expired, or the first in the queue if none runs. (A
    retried increment is queued in its old place, which may be before that of a running one.)
    """
    other = increments.alias("other")
    queued, running = IncrementStatus.QUEUED, IncrementStatus.RUNNING
    is_behind = and_(increments.c.status == queued, other.c.status == queued, other.c.arrival < increments.c.arrival)
    waits_for_another = exists().where(
        other.c.model_id == increments.c.model_id,
        other.c.id != increments.c.id,
        or_(other.c.status == running, is_behind),
    )
    abandoned = and_(increments.c.status == running, increments.c.lease_expires_at < moment())
    query = (
        select(increments)
        .where(or_(increments.c.status == queued, abandoned))
        .where(~waits_for_another)
        .order_by(increments.c.arrival)
        .limit(limit)
    )
    return tuple(rows.increment(row) for row in connection.execute(query).mappings())


def claim(connection: Connection, *, worker: str, lease_seconds: float, max_crashes: int) -> Claim | None:
    """Claim the oldest runnable increment; None when there is none.

    An increment whose lease has expired counts one more crash; after ``max_crashes`` in a row it has failed.
    """
    for seen in runnable(connection):
        crashes = seen.crashes + (seen.status is IncrementStatus.RUNNING)
        won = _take(connection, seen, worker=worker, lease_seconds=lease_seconds, crashes=crashes)
        if won is None:
            continue  # another worker was faster
        if seen.cancel_requested:
            end(connection, won, IncrementStatus.CANCELLED)
        elif crashes >= max_crashes:
            reason = f"{crashes} attempts in a row ended early: {LEASE_LOST}"
            end(connection, won, IncrementStatus.FAILED, reason=reason)
        else:
            events.add_status(connection, seen.id, IncrementStatus.RUNNING, attempt=won.attempt)
            return won
        # The end of this one has made the next of its model runnable.
        return claim(connection, worker=worker, lease_seconds=lease_seconds, max_crashes=max_crashes)
    return None


def standing(connection: Connection) -> tuple[Claim, ...]:
    """The claim on every running increment, whether its lease has expired or not."""
    query = select(increments.c.id, increments.c.attempt).where(increments.c.status == IncrementStatus.RUNNING)
    return tuple(Claim(row.id, row.attempt) for row in connection.execute(query))


def longest_run(connection: Connection) -> float:
    """Seconds since the earliest start of a running increment; 0 if none runs."""
    query = select(func.min(increments.c.started_at), moment()).where(increments.c.status == IncrementStatus.RUNNING)
    began, now_there = connection.execute(query).one()
    return max(0.0, (now_there - began).total_seconds()) if began is not None else 0.0


def renew(
    connection: Connection, held: Claim, *, lease_seconds: float, progress: Mapping[str, Any] | None = None
) -> bool | None:
    """Extend the lease and write progress.

    Returns whether a cancellation was requested, or None when the claim is lost.
    """
    values: dict[str, Any] = {"lease_expires_at": moment(lease_seconds)}
    if progress is not None:
        values["progress"] = dict(progress)
    query = update(increments).where(held.row).values(values).returning(increments.c.cancel_requested)
    answer = connection.execute(query).scalar_one_or_none()
    return None if answer is None else bool(answer)


def holds(connection: Connection, held: Claim) -> bool:
    """Whether the claim still holds; its model and its row stay locked until the transaction ends.

    So the claim holds for the rest of the transaction. The model is locked first, as in every transaction that locks
    both.
    """
    owner = connection.scalar(select(increments.c.model_id).where(increments.c.id == held.increment_id))
    if owner is None:
        return False
    locks.lock_model(connection, owner)
    query = select(increments.c.id).where(held.row).with_for_update()
    return connection.scalar(query) is not None


def end(connection: Connection, held: Claim, status: IncrementStatus, *, reason: str | None = None) -> bool:
    """Finish the increment; False when the claim is lost."""
    reason = None if reason is None else safetext.discreet(reason)  # it may quote a URL with a password
    ended = connection.execute(
        update(increments).where(held.row).values(status=status, error=reason, lease_expires_at=None, finished_at=now())
    )
    if ended.rowcount == 0:
        return False
    _close_attempt(connection, held.increment_id, held.attempt, outcome=str(status), reason=reason)
    events.add_status(connection, held.increment_id, status, attempt=held.attempt, error=reason)
    return True


def refuse(connection: Connection, held: Claim, *, reason: str) -> None:
    """End an increment that can never succeed: as cancelled if a cancellation was requested, otherwise as failed."""
    query = select(increments.c.cancel_requested).where(held.row).with_for_update()
    if connection.scalar(query):
        end(connection, held, IncrementStatus.CANCELLED)
    else:
        end(connection, held, IncrementStatus.FAILED, reason=reason)


def give_back(
    connection: Connection, held: Claim, *, reason: str, crashed: bool, max_crashes: int
) -> IncrementStatus | None:
    """Put the increment back into the queue after an attempt without a result; returns its new status.

    A crash is counted, and after ``max_crashes`` since the last checkpoint the increment has failed. The orderly
    shutdown of a worker is not counted. If a cancellation was requested, the increment is cancelled instead. Returns
    None when the claim is lost.
    """
    reason = safetext.discreet(reason)
    query = select(increments.c.crashes, increments.c.cancel_requested).where(held.row).with_for_update()
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    if row.cancel_requested:
        end(connection, held, IncrementStatus.CANCELLED)
        return IncrementStatus.CANCELLED
    crashes = row.crashes + 1 if crashed else row.crashes
    if crashes >= max_crashes:
        connection.execute(update(increments).where(held.row).values(crashes=crashes))
        end(
            connection,
            held,
            IncrementStatus.FAILED,
            reason=f"{crashes} attempts in a row ended without a result or a new checkpoint; the last: {reason}",
        )
        return IncrementStatus.FAILED
    connection.execute(
        update(increments)
        .where(held.row)
        .values(status=IncrementStatus.QUEUED, crashes=crashes, lease_expires_at=None, worker=None, progress=None)
    )
    outcome = "crashed" if crashed else "released"
    _close_attempt(connection, held.increment_id, held.attempt, outcome=outcome, reason=reason)
    events.add_status(connection, held.increment_id, IncrementStatus.QUEUED, attempt=held.attempt, reason=reason)
    return IncrementStatus.QUEUED


def _take(connection: Connection, seen: Increment, *, worker: str, lease_seconds: float, crashes: int) -> Claim | None:
    """Begin an attempt if the increment has not changed since ``seen`` and no other one of its model runs; else None.

    Locks the model, so that the head, which becomes the parent, is not replaced and deleted before the commit.
    """
    locks.lock_model(connection, seen.model_id)
    unchanged = and_(
        increments.c.id == seen.id,
        increments.c.attempt == seen.attempt,
        increments.c.status == seen.status,
        increments.c.lease_expires_at == seen.lease_expires_at,  # a late renewal counts
    )
    head = select(models_table.c.head).where(models_table.c.id == seen.model_id).scalar_subquery()
    won = Claim(seen.id, seen.attempt + 1)
    try:
        with connection.begin_nested():
            taken = connection.execute(
                update(increments)
                .where(unchanged)
                .values(
                    status=IncrementStatus.RUNNING,
                    attempt=won.attempt,
                    crashes=crashes,
                    worker=worker,
                    lease_expires_at=moment(lease_seconds),
                    parent=head,
                    started_at=seen.started_at or moment(),
                    progress=None,
                )
            )
    except IntegrityError:  # the unique index on running increments
        return None
    if taken.rowcount == 0:
        return None
    if seen.status is IncrementStatus.RUNNING:
        _close_attempt(connection, seen.id, seen.attempt, outcome="crashed", reason=LEASE_LOST)
    connection.execute(
        insert(attempts).values(increment_id=seen.id, attempt=won.attempt, worker=worker, started_at=now())
    )
    return won


def _close_attempt(
    connection: Connection, increment_id: str, attempt: int, *, outcome: str, reason: str | None
) -> None:
    connection.execute(
        update(attempts)
        .where(attempts.c.increment_id == increment_id)
        .where(attempts.c.attempt == attempt)
        .values(outcome=outcome, reason=reason, finished_at=now())
    )
