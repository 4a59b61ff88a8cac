"""The embedded service, which `accrete up` runs: a private Redis, one worker and the API.

It starts in this order: Redis → migrations → worker and API → ready. It ends in reverse order.
"""

import os
import socket
import sys
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx

from api.keys.first_key import Unguarded, check
from api.process.child import Part
from api.process.privateredis import PrivateRedis, answers
from api.process.sockets import listening
from api.process.supervisor import StartFailed, StopRequested, Supervisor
from api.process.workerping import WorkerPing, worker_ping
from storage.broker import celery_app
from storage.environment import training_lacks
from storage.migrations import upgrade
from storage.settings import Settings, is_this_machine

_READY_SECONDS = 2.0  # timeout of one readiness request
_CLOSING_SECONDS = 15.0  # for the API to close what is left, after draining and the last deadline
_WAIT_POLICY = "OMP_WAIT_POLICY"  # OpenMP 5.2, §21.7; read once, when torch is loaded


def serve(settings: Settings, *, verbose: bool, on_ready: Callable[[str], None]) -> None:
    """Run the service until a signal ends it; ``on_ready`` gets its URL once it answers.

    Raises HomeInUse, RedisMissing and StartFailed.
    """
    _check_training()
    settings = renewed(settings, keys=keys_of(settings))
    home = settings.home.resolve()
    home.mkdir(parents=True, exist_ok=True)
    with Supervisor(home, verbose=verbose) as supervisor:
        port = settings.port or free_port(settings.host)
        refuse_taken_port(settings.host, port)
        settings = with_dashboard(settings)
        try:
            redis_url = settings.redis_url or start_redis(supervisor, home)
            settings = renewed(settings, home=home, port=port, redis_url=redis_url)
            _check_redis(redis_url)
            upgrade(settings.database)
            _check_keys(settings)
            supervisor.check_stop()
            node = f"accrete-{os.getpid()}@{socket.gethostname()}"
            ping = worker_ping(celery_app(settings), redis_url, node)
            supervisor.at_end(ping.end)
            parts = [worker_part(settings, node, ping), api_part(settings)]
            supervisor.start([*parts, dashboard_part(settings)] if settings.dashboard_port else parts)
            on_ready(service_url(settings))
            supervisor.watch()
        except StopRequested:
            return


def keys_of(settings: Settings) -> str:
    """ACCRETE_KEYS with `auto` resolved: `none` if the service is for this machine only and no key file is set."""
    if settings.keys != "auto":
        return settings.keys
    return "none" if is_this_machine(settings.host) and settings.admin_key_file is None else "required"


def _check_training() -> None:
    """Raise StartFailed if only the API is installed: its worker would fail every increment."""
    if (lack := training_lacks()) is not None:
        raise StartFailed(f"{lack} (the API alone, with the Redis of ACCRETE_REDIS_URL: python -m api)")


def _check_redis(url: str) -> None:
    """Raise StartFailed if no Redis answers; the message does not show the URL, which may hold a secret."""
    try:
        there = answers(url)
    except ValueError as error:
        raise StartFailed("ACCRETE_REDIS_URL is no URL of a Redis: redis://HOST:PORT/0 or unix:///PATH") from error
    if not there:
        raise StartFailed("the Redis that ACCRETE_REDIS_URL names does not answer")


def _check_keys(settings: Settings) -> None:
    """Raise StartFailed if the API would refuse to start for lack of keys: it would be restarted again and again."""
    try:
        check(settings)
    except Unguarded as error:
        raise StartFailed(str(error)) from error


def start_redis(supervisor: Supervisor, home: Path) -> str:
    """Start the private Redis and return its URL."""
    private = PrivateRedis(home / "run")
    supervisor.at_end(private.remove)
    supervisor.start([private.part()])
    return private.url


def worker_part(settings: Settings, node: str, ping: WorkerPing) -> Part:
    """The Celery worker. Its pool is of threads, since training runs in processes of its own."""
    return Part(
        name="worker",
        command=[sys.executable, "-m", "trainer.workers", "--hostname", node],
        environment=environment(settings),
        ready=ping.answered,
        started=ping.restarted,
        failing=ping.failing,
    )


def api_part(settings: Settings) -> Part:
    """The API under uvicorn."""
    url = service_url(settings) + "/readyz"
    return Part(
        name="api",
        command=[sys.executable, "-m", "api"],
        environment=environment(settings),
        interruptible=True,
        grace_seconds=settings.drain_seconds + settings.deadline_seconds + _CLOSING_SECONDS,
        ready=lambda: answers_http(url),
    )


def with_dashboard(settings: Settings) -> Settings:
    """The settings with the dashboard's port and address; its port is a free one where the API's is.

    Raises StartFailed if another program has the port.
    """
    if not settings.dashboard_port:
        return settings
    host = settings.host
    port = settings.dashboard_port if settings.port else free_port(host)
    refuse_taken_port(host, port, way_out="choose another for the dashboard with ACCRETE_DASHBOARD_PORT (0: none)")
    return renewed(settings, dashboard_port=port, dashboard_url=f"http://{_in_url(host)}:{port}")


def dashboard_part(settings: Settings) -> Part:
    """The pages for people, a program of their own that knows the API's address alone."""
    url = f"http://{_in_url(_reachable(settings.host))}:{settings.dashboard_port}"
    address = ["--host", settings.host, "--port", str(settings.dashboard_port)]
    return Part(
        name="dashboard",
        command=[
            sys.executable,
            "-m",
            "api.dashboard",
            "--api",
            service_url(settings),
            *address,
            "--home",
            str(settings.home),
        ],
        environment={},
        ready=lambda: answers_http(f"{url}/key"),
    )


def environment(settings: Settings) -> dict[str, str]:
    """The environment variables of a part: every setting that has a value, and how OpenMP threads wait.

    Training and serving share the processor. By default OpenMP threads spin while they wait for each other, which takes
    processor time from all other threads: on a busy machine training becomes many times slower.
    """
    values: dict[str, Any] = settings.model_dump(mode="json", exclude_none=True)
    variables = {f"ACCRETE_{name.upper()}": str(value) for name, value in values.items()}
    return variables | {_WAIT_POLICY: os.environ.get(_WAIT_POLICY, "PASSIVE")}


def renewed(settings: Settings, **changes: Any) -> Settings:
    """The settings with changes, validated again and with nothing derived from the old values."""
    return Settings(**{**settings.model_dump(), **changes})


def service_url(settings: Settings) -> str:
    """Where to reach the API from this machine."""
    return f"http://{_in_url(_reachable(settings.host))}:{settings.port}"


def _reachable(host: str) -> str:
    """An address of this machine at which what listens on ``host`` is reached."""
    if host in {"::", str(ip_address(0))}:  # all addresses of this machine, the loopback among them
        return "::1" if host == "::" else "127.0.0.1"
    return host


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def answers_http(url: str) -> bool:
    """Whether a GET there is answered with 200."""
    try:
        return httpx.get(url, timeout=_READY_SECONDS, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def free_port(host: str) -> int:
    """A TCP port that is free at the moment."""
    with listening(host, 0) as listener:
        return int(listener.getsockname()[1])


def refuse_taken_port(
    host: str, port: int, *, way_out: str = "choose another with --port or ACCRETE_PORT (0 picks a free one)"
) -> None:
    """Raise StartFailed, with the way out, if nothing could listen on this port."""
    try:
        listening(host, port).close()
    except OSError as error:
        reason = f"cannot listen on {host} port {port}: {error.strerror}"
        raise StartFailed(f"{reason}; {way_out}") from error
