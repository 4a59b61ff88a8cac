"""The Celery application of the worker: `trainer.workers`, or `celery -A trainer.workers.app worker -P threads -c 2`.

Two threads: one runs increments, one at a time; the other is always free to answer the canary.
"""

import sys

from celery.signals import celeryd_after_setup, setup_logging, worker_ready, worker_shutting_down

from storage import inherited_signals
from storage.broker import celery_app
from storage.environment import log_environment_warnings, training_lacks
from storage.logs import configure
from storage.settings import settings_of_process
from trainer.workers.worker import Worker

ignored = inherited_signals.ignored()  # as the parent process set them
settings = settings_of_process()
if (lack := training_lacks()) is not None:
    sys.exit(f"error: {lack}")
app = celery_app(settings)
app.conf.imports = ("trainer.workers.tasks",)
worker = Worker(settings, app)


@setup_logging.connect
def _log(**_: object) -> None:
    configure(settings)  # instead of Celery's own logging
    log_environment_warnings(settings)


@celeryd_after_setup.connect
def _remember_name(sender: str, **_: object) -> None:
    worker.name = sender


@worker_ready.connect
def _begin(**_: object) -> None:
    inherited_signals.ignore(ignored)  # Celery has installed handlers of its own meanwhile
    worker.start()


@worker_shutting_down.connect
def _stop(**_: object) -> None:
    worker.stop()
