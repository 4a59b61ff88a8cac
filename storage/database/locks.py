"""The lock that orders the transactions that write a model's data."""

from sqlalchemy import Connection, select

from storage.database.tables import models


def lock_model(connection: Connection, model_id: str) -> None:
    """Lock the row of the model with that id, if it exists, until the transaction ends.

    A transaction that writes several rows of a model's data locks the model before any other row. Of two such
    transactions one waits until the other has committed, and then sees its changes. They cannot deadlock, because
    neither holds another lock while it waits.
    """
    connection.execute(select(models.c.id).where(models.c.id == model_id).with_for_update())
