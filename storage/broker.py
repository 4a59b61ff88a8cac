"""The Celery application both sides share: the API sends wake-ups through it by name, the worker adds the tasks.

A message is only a wake-up; what there is to do stands in the database (DESIGN, Life of an increment).
"""

from celery import Celery

from storage.settings import Settings

RUN_INCREMENT = "increment.run"
WAKE_UP_SECONDS = 60  # an older wake-up says nothing new: the sweep has sent others since


def celery_app(settings: Settings) -> Celery:
    """JSON only, no results, acknowledged on receipt, one message at a time, reconnecting for ever."""
    app = Celery("accrete", broker=settings.broker)
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
