"""Every setting of the service, read from ``ACCRETE_*`` environment variables."""

import re
import sys
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import URL, make_url

from storage import safetext

_ORIGIN = re.compile(r"https?://[A-Za-z0-9._~-]+(:\d+)?|https?://\[[0-9A-Fa-f:.]+\](:\d+)?")
_OWN_PATHS = ("v1", "v2", "livez", "readyz", "metrics", "docs", "openapi.json", "problems")


class Settings(BaseSettings):
    """One immutable record, built once per process and passed down; nothing reads the environment later."""

    model_config = SettingsConfigDict(
        env_prefix="ACCRETE_",
        env_ignore_empty=True,  # `ACCRETE_DATABASE_URL=` in an env file means that it is not set
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,  # the input may be a URL with a password
    )

    home: Path = Field(Path("data"), description="Folder that holds everything the service writes.")
    host: str = Field("127.0.0.1", description="Address the API listens on.")
    port: int = Field(8000, ge=0, le=65535, description="Port of the API; 0 lets `accrete up` pick a free one.")
    dashboard_port: int = Field(
        8001, ge=0, le=65535, description="Port of the dashboard of `accrete up`, on the same address; 0: no dashboard."
    )
    dashboard_url: str | None = Field(
        None, pattern=r"^https?://", description="Where / sends browsers, to the dashboard; `accrete up` sets it."
    )
    keys: Literal["auto", "required", "none"] = Field(
        "auto",
        description="Who needs an API key: required (everybody), none (nobody; where host is this machine alone), auto "
        "(none for `accrete up` on this machine alone, unless ACCRETE_ADMIN_KEY_FILE is set; else required).",
    )
    admin_key_file: Path | None = Field(
        None, description="File with the administrator's key, installed when the service starts: openssl rand -hex 32."
    )
    root_path: str = Field(
        "",
        pattern=r"^((/[A-Za-z0-9._~-]+)+)?$",
        description="Path under which a proxy serves the API, such as /accrete; the proxy may strip it or not.",
    )
    keep_alive_seconds: int = Field(
        75, ge=1, description="How long an idle connection is kept; set it longer than the proxy does (nginx: 60 s)."
    )
    drain_seconds: float = Field(
        5.0, ge=0, description="After SIGTERM: how long /readyz is red while connections are still taken and answered."
    )
    cors_origins: str | None = Field(
        None,
        description="Origins whose web pages may call the API, such as https://tool.example.org, by commas; *: any.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest severity that is logged."
    )
    log_format: Literal["text", "json"] = Field("text", description="How the logs are written, one line an entry.")
    api_workers: int = Field(1, ge=1, description="Processes of the API that share its port.")

    database_url: str | None = Field(
        None, description="PostgreSQL as postgresql://user@host/name, or any SQLAlchemy URL; default: SQLite in home."
    )
    blob_url: str | None = Field(
        None, description="A folder, or s3://bucket/prefix[?endpoint_url=…&region=…]; default: a folder in home."
    )
    redis_url: str | None = Field(None, description="redis://… or unix:///path; default: a private server.")

    device: str = Field("auto", description="Where training runs: auto (a GPU if there is one), cpu, cuda, cuda:1, …")
    threads: int | None = Field(None, ge=1, description="Threads of a training process; default: every processor.")
    niceness: int = Field(10, ge=0, le=19, description="How far training yields the processor to serving, nice(2).")
    training_memory_bytes: int | None = Field(
        None, gt=0, description="Private memory a training process may fill, torch's own included; default: no bound."
    )
    training_gpu_share: float | None = Field(
        None, gt=0, le=1, description="Share of a GPU's memory that training may allocate; default: what is free."
    )
    int8: bool = Field(
        False,
        description="Also offer new versions in int8, network.int8.onnx, if they lose at most 0.5 points of accuracy.",
    )
    weights: Path | None = Field(
        None, description="Folder of the files that a recipe's initial_weights may name; default: home/weights."
    )

    heartbeat_seconds: float = Field(5.0, gt=0, description="How often a worker renews its lease, at least.")
    lease_seconds: float = Field(20.0, gt=0, description="After how long without renewal an increment is taken over.")
    silence_seconds: float = Field(
        900.0, gt=0, description="After how long without a sign of life a training process is ended, as one crash."
    )
    sweep_seconds: float = Field(
        5.0, gt=0, description="How often an idle worker looks for increments without a message."
    )
    max_crashes: int = Field(
        5, ge=1, description="Attempts in a row without result or new checkpoint after which an increment fails."
    )
    checkpoint_seconds: float = Field(
        1.0, ge=0, description="Least time from one checkpoint of a training to the next; 0: after every epoch."
    )

    max_upload_bytes: int = Field(8 << 30, gt=0, description="Largest archive. Beyond: 413.")
    max_request_bytes: int = Field(64 << 20, gt=0, description="Largest body that holds images. Beyond: 413.")
    max_prediction_json_bytes: int = Field(
        16 << 20, gt=0, description="Largest JSON that holds images or tensors. Beyond: 413."
    )
    max_json_bytes: int = Field(1 << 20, gt=0, description="Largest body of any other request. Beyond: 413.")
    max_archive_members: int = Field(500_000, gt=0, description="Entries of an archive. Beyond: 422.")
    max_unpacked_bytes: int = Field(32 << 30, gt=0, description="Size of an archive's files together. Beyond: 422.")
    max_image_bytes: int = Field(
        32 << 20, gt=0, description="Largest image, in an archive or alone. Beyond: 422 or 413."
    )
    max_image_pixels: int = Field(50_000_000, gt=0, description="Width × height of an image. Beyond: it is rejected.")
    max_classes: int = Field(10_000, gt=0, description="Classes of one batch. Beyond: 422.")
    max_bad_share: float = Field(
        0.1, ge=0, le=1, description="Share of unusable files above which a batch is refused, naming some."
    )
    max_images_per_request: int = Field(64, gt=0, description="Images of one prediction request. Beyond: 422.")

    loaded_versions: int = Field(4, ge=1, description="Versions kept in memory beside those in service.")
    serving_devices: str = Field(
        "auto",
        description="Where predictions are computed, a copy on each: auto (every GPU, or cpu), cpu, cuda:0,cuda:1.",
    )
    serving_threads: int | None = Field(
        None,
        ge=1,
        description="Threads of one inference on the processor; default: every processor, divided by the API's "
        "processes and devices.",
    )
    serving_precision: Literal["float32", "int8"] = Field(
        "float32",
        description="How the processor computes predictions: float32, or int8 where a version has network.int8.onnx.",
    )
    minibatch_images: int = Field(
        32, ge=1, description="Most images computed together; fewer where more would hardly make them cheaper."
    )
    minibatch_wait_seconds: float = Field(
        0.002,
        ge=0,
        description="How long a minibatch waits at most for images that are still being decoded; less where it saves "
        "less.",
    )
    max_waiting_images: int = Field(512, gt=0, description="Images of one version that may wait. Beyond: 503.")
    deadline_seconds: float = Field(
        30.0, gt=0, description="How long a prediction may take; a request may ask for less. Beyond: 504."
    )
    record_share: float = Field(
        1.0, ge=0, le=1, description="Share of predictions of which a record is kept; 0: none but durable ones."
    )
    keep_predictions_days: float = Field(
        90.0, gt=0, description="After how long a prediction's record is deleted; inf: never."
    )
    kept_images_days: float = Field(
        30.0, gt=0, description="After how long the image of a prediction, where a model keeps them, is deleted."
    )
    kept_images_bytes: int = Field(
        1 << 30, gt=0, description="Bytes of predicted images that a model keeps: beyond, the oldest are deleted."
    )
    keep_answers_days: float = Field(
        30.0, gt=0, description="How long an Idempotency-Key of a batch is remembered; inf: for ever."
    )
    keep_events_days: float = Field(
        90.0,
        gt=0,
        description="After how long the events of a finished increment are deleted, except the last; inf: never.",
    )
    keep_audit_days: float = Field(
        730.0, gt=0, description="After how long an entry of the audit log is deleted; inf: never."
    )
    watch_seconds: float = Field(0.25, gt=0, description="How often the API looks for promotions.")

    @field_validator("port", "dashboard_port", mode="before")
    @classmethod
    def _no_service_link(cls, value: object, info: ValidationInfo) -> object:
        """Ignore the ACCRETE_PORT that Kubernetes sets in every container for a Service named accrete: not a port."""
        return cls.model_fields[str(info.field_name)].default if is_service_link(value) else value

    @cached_property
    def database(self) -> URL:
        """The database's URL, with the driver this project ships (psycopg 3).

        It is a URL object and not a string, because the path of a home may hold characters with a meaning in URLs.
        """
        if self.database_url is None:
            return URL.create("sqlite", database=str(self.home.resolve() / "accrete.db"))
        if urlsplit(self.database_url).scheme in {"postgres", "postgresql"}:
            return make_url("postgresql+psycopg://" + self.database_url.split("://", 1)[1])
        return make_url(self.database_url)

    @cached_property
    def blobs(self) -> str:
        """Location of the blob store: a folder or an ``s3://`` URL."""
        return self.blob_url or str(self.home.resolve() / "blobs")

    @cached_property
    def origins(self) -> tuple[str, ...]:
        """The origins of the web pages that may call the API, as browsers send them."""
        named = (self.cors_origins or "").split(",")
        return tuple(origin.strip().rstrip("/") for origin in named if origin.strip())

    @model_validator(mode="after")
    def _root_is_not_our_own(self) -> "Settings":
        if self.root_path.split("/")[1:2] in ([own] for own in _OWN_PATHS):
            raise ValueError(f"ACCRETE_ROOT_PATH={self.root_path} begins as addresses of the service do: take another")
        return self

    @model_validator(mode="after")
    def _origins_are_origins(self) -> "Settings":
        if unfit := [origin for origin in self.origins if origin != "*" and not _ORIGIN.fullmatch(origin)]:
            raise ValueError(f"ACCRETE_CORS_ORIGINS: {unfit[0]!r} is no origin, such as https://tool.example.org")
        return self

    @cached_property
    def keys_needed(self) -> bool:
        """Whether requests need a key: always, unless ``keys`` is "none" and ``host`` is this machine alone."""
        return self.keys != "none" or not is_this_machine(self.host)

    @cached_property
    def redis(self) -> str:
        """URL of Redis; raises ValueError if none is set (``accrete up`` sets one by itself)."""
        if self.redis_url is None:
            raise ValueError("ACCRETE_REDIS_URL is not set: start with `accrete up`, which runs a private Redis")
        return self.redis_url

    @cached_property
    def broker(self) -> str:
        """URL of Redis in Celery's form; raises ValueError as `redis` does."""
        return self.redis.replace("unix://", "redis+socket://", 1)

    @cached_property
    def weights_folder(self) -> Path:
        """Folder that recipes may name initial weight files from."""
        return (self.weights or self.home / "weights").resolve()

    @cached_property
    def scratch(self) -> Path:
        """Folder for unfinished work: uploads on their way to the blob store, attempts of increments."""
        return self.home.resolve() / "scratch"


class SettingsInvalid(ValueError):
    """Some settings are invalid; the message names their environment variables."""


def read_settings(**chosen: Any) -> Settings:
    """The settings; ``chosen`` are those from a command line. Raises `SettingsInvalid`."""
    try:
        return Settings(**chosen)
    except ValidationError as error:
        raise SettingsInvalid("; ".join(_fault(one["loc"], one["msg"]) for one in error.errors())) from error


def settings_of_process() -> Settings:
    """The settings; ends the process with one line that names the settings it cannot use."""
    try:
        return read_settings()
    except SettingsInvalid as error:
        sys.exit(f"error: {safetext.message(str(error))}")


def _fault(place: tuple[int | str, ...], message: str) -> str:
    """An error of pydantic with the name of its variable; an error about several settings names them itself."""
    message = message.removeprefix("Value error, ")
    return f"ACCRETE_{'_'.join(map(str, place)).upper()}: {message}" if place else message


def is_service_link(value: object) -> bool:
    """Whether a value is the address of a service, as Kubernetes and Docker set it in a container's environment."""
    return isinstance(value, str) and value.startswith(("tcp://", "udp://", "sctp://"))


def is_this_machine(host: str) -> bool:
    """Whether a host name or address is a loopback one, which can be reached from this machine only."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:  # a host name: only "localhost" is certain
        return host.lower().rstrip(".") == "localhost"
