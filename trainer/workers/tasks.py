"""The two messages a worker understands; both are safe to deliver late, twice or forged."""

from storage.broker import RUN_INCREMENT
from trainer.workers.app import app, worker
from trainer.workers.worker import CANARY


@app.task(name=RUN_INCREMENT)
def run_increment(increment_id: str) -> None:
    """Work on the increments that are next in the database; the message is only a wake-up, its id is for the log."""
    worker.work(asked_for=increment_id)


@app.task(name=CANARY)
def canary() -> None:
    """Prove that messages still reach this worker."""
    worker.canary_returned()
