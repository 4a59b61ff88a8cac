"""The lock that orders everybody who writes to what belongs to a model."""

from sqlalchemy import Connection, select

from storage.database.tables import models


def lock_model(connection: Connection, model_id: str) -> None:
    """Hold the model of that id, if there is one, until the transaction ends.

    Whoever writes to what belongs to a model, and to more than a row of it, locks the model before anything else: of
    two at once one waits until the other has committed, sees what it did, and neither holds what the other waits for.
    """
    connection.execute(select(models.c.id).where(models.c.id == model_id).with_for_update())
