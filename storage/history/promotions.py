"""The history of promotions: which version was in service since when, by whom and why."""

from sqlalchemy import Connection, insert, select

from storage import safetext
from storage.database import pages, rows
from storage.database.tables import promotions
from storage.domain import Model, Page, PromotionRecord

_RECORD = [column for column in promotions.c if column is not promotions.c.model_id]


def record(connection: Connection, model: Model, promotion: PromotionRecord) -> None:
    """Write a promotion, in the transaction that makes it; what looks like a secret in its reason is masked."""
    written = {column.name: getattr(promotion, column.name) for column in _RECORD}
    if promotion.reason is not None:
        written["reason"] = safetext.discreet(promotion.reason)
    connection.execute(insert(promotions).values(model_id=model.id, **written))


def page(connection: Connection, model: Model, *, limit: int, cursor: str | None) -> Page[PromotionRecord]:
    """Promotions of a model, latest first."""
    query = select(*_RECORD).where(promotions.c.model_id == model.id)
    key = promotions.c.revision
    return pages.page(connection, query, key=key, read=rows.promotion, limit=limit, cursor=cursor, descending=True)
