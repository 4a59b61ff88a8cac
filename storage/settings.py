"""Every setting of the service, read from ``ACCRETE_*`` environment variables."""

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

MEBIBYTE = 1 << 20


class Settings(BaseSettings):
    """One immutable record, built once per process and passed down; nothing reads the environment later."""

    model_config = SettingsConfigDict(env_prefix="ACCRETE_", frozen=True, extra="ignore")

    home: Path = Field(Path("data"), description="Folder that holds everything the service writes.")
    host: str = Field("127.0.0.1", description="Address the API listens on.")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8000, description="Port of the API; 0 picks a free one.")

    database_url: str | None = Field(None, description="SQLAlchemy URL; default: SQLite in the home folder.")
    blob_url: str | None = Field(
        None, description="Folder path, or s3://bucket/prefix[?endpoint_url=…&region=…]; default: a folder in home."
    )
    redis_url: str | None = Field(None, description="redis://… or unix:///path; default: a private server.")

    device: str = Field("auto", description="Where training runs: auto, cpu, cuda, cuda:1, …")
    threads: Annotated[int, Field(ge=1)] | None = Field(None, description="Threads of a training process.")
    niceness: Annotated[int, Field(ge=0, le=19)] = Field(
        10, description="How far a training process yields the processor to serving (nice(2))."
    )
    weights: Path | None = Field(None, description="Folder of initial weight files; default: home/weights.")

    heartbeat_seconds: Annotated[float, Field(gt=0)] = 5.0
    lease_seconds: Annotated[float, Field(gt=0)] = 20.0
    sweep_seconds: Annotated[float, Field(gt=0)] = 5.0
    max_crashes: Annotated[int, Field(ge=1)] = Field(5, description="Crashed attempts in a row before giving up.")

    max_upload_bytes: Annotated[int, Field(gt=0)] = 8 << 30
    max_request_bytes: Annotated[int, Field(gt=0)] = Field(
        64 * MEBIBYTE, description="Largest body of any request that is not an upload of a batch."
    )
    max_archive_members: Annotated[int, Field(gt=0)] = 500_000
    max_unpacked_bytes: Annotated[int, Field(gt=0)] = 32 << 30
    max_image_bytes: Annotated[int, Field(gt=0)] = 32 * MEBIBYTE
    max_image_pixels: Annotated[int, Field(gt=0)] = 50_000_000
    max_classes: Annotated[int, Field(gt=0)] = Field(10_000, description="Classes of one batch.")
    max_bad_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.1, description="Share of unreadable images above which a batch is refused as a whole."
    )
    max_images_per_request: Annotated[int, Field(gt=0)] = Field(64, description="Images of one prediction request.")

    loaded_versions: Annotated[int, Field(ge=1)] = Field(4, description="Versions kept in memory beside current ones.")
    serving_threads: Annotated[int, Field(ge=1)] | None = Field(None, description="Threads of one inference.")
    watch_seconds: Annotated[float, Field(gt=0)] = Field(0.25, description="How often promotions are looked for.")

    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @cached_property
    def database(self) -> str:
        """SQLAlchemy URL of the database, with the driver this project ships (psycopg 3)."""
        if self.database_url is None:
            return f"sqlite:///{self.home.resolve() / 'accrete.db'}"
        if urlsplit(self.database_url).scheme in {"postgres", "postgresql"}:
            return "postgresql+psycopg://" + self.database_url.split("://", 1)[1]
        return self.database_url

    @cached_property
    def blobs(self) -> str:
        """Location of the blob store: a folder or an ``s3://`` URL."""
        return self.blob_url or str(self.home.resolve() / "blobs")

    @cached_property
    def broker(self) -> str:
        """Broker URL as Celery writes it; asks for one when the service was not started by its supervisor."""
        if self.redis_url is None:
            raise ValueError("ACCRETE_REDIS_URL is not set: start with `accrete up`, which runs a private Redis")
        return self.redis_url.replace("unix://", "redis+socket://", 1)

    @cached_property
    def weights_folder(self) -> Path:
        """Folder that recipes may name initial weight files from."""
        return (self.weights or self.home / "weights").resolve()

    @cached_property
    def scratch(self) -> Path:
        """Folder for unfinished work: uploads on their way to the blob store, attempts of increments."""
        return self.home.resolve() / "scratch"
