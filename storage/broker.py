"""The Celery application both sides share: the API sends wake-ups through it by name, the worker adds the tasks.

A message is only a wake-up; what there is to do stands in the database (DESIGN, Life of an increment).
"""

import importlib
import os
from types import ModuleType
from typing import Any

from celery import Celery
from celery.loaders.app import AppLoader

from storage.settings import Settings

RUN_INCREMENT = "increment.run"
WAKE_UP_SECONDS = 60  # an older wake-up says nothing new: the sweep has sent others since
# Celery prefers these to what it is told, and they may be another project's.
_OTHERS_VARIABLES = ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL", "CELERY_RESULT_BACKEND")


class Loader(AppLoader):
    """Imports as Python does; Celery's own loader looks into the working directory first."""

    def import_from_cwd(self, module: str, imp: Any = None, package: str | None = None) -> ModuleType:
        """Import a module, from wherever else it is found."""
        return importlib.import_module(module, package)


def celery_app(settings: Settings) -> Celery:
    """JSON only, no results, acknowledged on receipt, one message at a time, reconnecting for ever."""
    for name in _OTHERS_VARIABLES:
        os.environ.pop(name, None)
    # No fixups: what Celery does for Django when DJANGO_SETTINGS_MODULE is set is no business of ours.
    app = Celery("accrete", broker=settings.broker, loader="storage.broker:Loader", fixups=[])
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        result_backend=None,
        task_ignore_result=True,
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_direct=True,  # the canary has to come back to the very worker that sent it
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
