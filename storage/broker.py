"""The Celery application that the API and the workers share: the API sends tasks by name, a worker adds their code.

A message only wakes a worker up. The work itself is recorded in the database (DESIGN, Life of an increment).
"""

import importlib
import os
from types import ModuleType
from typing import Any

from celery import Celery
from celery.loaders.app import AppLoader

from storage.settings import Settings

RUN_INCREMENT = "increment.run"
WAKE_UP_SECONDS = 60  # older wake-ups are dropped: the sweep has sent newer ones since
# Celery prefers these variables to its configuration, and they may belong to another project.
_OTHERS_VARIABLES = ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL", "CELERY_RESULT_BACKEND")


class Loader(AppLoader):
    """Imports as Python does; Celery's own loader looks into the working directory first."""

    def import_from_cwd(self, module: str, imp: Any = None, package: str | None = None) -> ModuleType:
        """Import a module without putting the working directory first."""
        return importlib.import_module(module, package)


def celery_app(settings: Settings) -> Celery:
    """The application: JSON only, no results, acknowledgement on receipt, one message at a time, endless reconnects."""
    for name in _OTHERS_VARIABLES:
        os.environ.pop(name, None)
    # No fixups: Celery would set up Django if the environment has a DJANGO_SETTINGS_MODULE.
    app = Celery("accrete", broker=settings.broker, loader="storage.broker:Loader", fixups=[])
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        result_backend=None,
        task_ignore_result=True,
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_direct=True,  # a worker's canary has to come back to the same worker
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "socket_keepalive": True,
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "health_check_interval": 10,
        },
        task_publish_retry_policy={"max_retries": 2, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.5},
        enable_utc=True,
    )
    return app


def wake_worker(app: Celery, increment_id: str) -> None:
    """Tell the workers that there is something to do; raises kombu's OperationalError when Redis cannot be reached."""
    app.send_task(RUN_INCREMENT, args=[increment_id], expires=WAKE_UP_SECONDS)
