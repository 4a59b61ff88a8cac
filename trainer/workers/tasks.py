"""The two messages a worker understands; both are safe to deliver late, twice or forged."""

from storage.broker import RUN_INCREMENT
from trainer.workers.app import app, worker
from trainer.workers.worker import CANARY


@app.task(name=RUN_INCREMENT)
def run_increment(increment_id: str) -> None:
    """Work on what the database says is next; the id is for the log, the message only a wake-up."""
    worker.work(asked_for=increment_id)


@app.task(name=CANARY)
def canary() -> None:
    """Prove that messages still reach this worker."""
    worker.canary_returned()
