"""The application: built from settings, with everything it needs started and stopped with it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from prometheus_client import CollectorRegistry

from api.bodies.uploads import clear_abandoned
from api.http import cors, problems
from api.http.conditional import Representations
from api.http.hosts import Addresses
from api.http.limits import BodyLimit
from api.http.root_path import RootPath
from api.http.telemetry import Observer
from api.keys.keyring import KeyRing
from api.measures import Measures, shared_folder
from api.openapi import document
from api.openapi.operations import TAGS
from api.routes import (
    audit,
    batches,
    browsing,
    classes,
    edits,
    evaluations,
    events,
    exports,
    health,
    images,
    increments,
    inference,
    metrics,
    models,
    plots,
    predictions,
    problem_pages,
    relabels,
    root,
    strategies,
    versions,
)
from api.service import Service
from api.serving.engine import Engine
from api.serving.kept_images import KeptImages
from api.serving.records import Recorder
from api.views.feed import Feed
from api.views.thumbnails import Thumbnails
from storage.blobs.opening import open_blobs
from storage.database.engine import Database
from storage.errors import (
    Forbidden,
    Invalid,
    Malformed,
    MediaTypeUnsupported,
    RateLimited,
    TooLarge,
    Unauthenticated,
)
from storage.settings import Settings
from storage.waking import Waker

# Predictions first: a request is compared with one route after another.
GUARDED = (
    predictions,
    strategies,
    events,
    audit,
    metrics,
    models,
    batches,
    images,
    browsing,
    classes,
    relabels,
    edits,
    increments,
    versions,
    exports,
    evaluations,
    plots,
)
REFUSALS = (Unauthenticated, Forbidden, RateLimited, Malformed, TooLarge, MediaTypeUnsupported, Invalid)


def build_service(settings: Settings, *, worker: int = 0) -> Service:
    """Build everything that requests use; the application's lifespan starts and stops it.

    ``worker`` is the position among the processes that share the port.
    """
    database, blobs = Database(settings.database), open_blobs(settings.blobs)
    measures = Measures(CollectorRegistry())
    ending = asyncio.Event()
    return Service(
        settings=settings,
        database=database,
        blobs=blobs,
        broker=Waker(settings),
        measures=measures,
        engine=Engine(settings, worker=worker, database=database, blobs=blobs, measures=measures),
        recorder=Recorder(
            database,
            measures,
            share=settings.record_share,
            kept_images=KeptImages(database, blobs, most_bytes=settings.kept_images_bytes),
        ),
        keyring=KeyRing(database, watch_seconds=settings.watch_seconds, shared=shared_folder()),
        feed=Feed(database, ending=ending),
        thumbnails=Thumbnails(),
        draining=asyncio.Event(),
        ending=ending,
    )


def create_app(settings: Settings, *, worker: int = 0) -> FastAPI:
    """The REST service in one process; ``worker`` is its position among the processes that share the port."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service = build_service(settings, worker=worker)
        clear_abandoned(settings)
        service.engine.start()
        service.recorder.start()
        service.keyring.start()
        app.state.service = service
        yield
        service.keyring.stop()
        service.recorder.stop()
        service.engine.stop()
        service.database.close()

    app = FastAPIOffline(
        redoc_url=None,  # its page loads a picture from another host
        swagger_ui_parameters={"validatorUrl": None},
        title="Accrete",
        summary="Serves an image classifier and keeps teaching it new classes.",
        version=version("accrete"),
        lifespan=lifespan,
        openapi_tags=TAGS,
        generate_unique_id_function=lambda route: route.name,  # the function's name, such as create_model
    )
    app.add_middleware(BodyLimit, settings=settings)
    app.add_middleware(Representations)
    if settings.origins:
        cors.install(app, settings.origins)
    app.add_middleware(Addresses)
    app.add_middleware(Observer, failed=problems.unexpected)
    if settings.root_path:
        app.add_middleware(RootPath, path=settings.root_path)
    problems.install(app)
    events.install(app)
    document.install(app, keys_needed=settings.keys_needed)
    refusals, protocol_refusals = problems.problems(*REFUSALS), problems.protocol_errors(*REFUSALS)
    app.include_router(predictions.hot, responses=refusals)
    app.include_router(inference.hot, responses=protocol_refusals)
    for module in GUARDED:
        app.include_router(module.router, responses=refusals)
    app.include_router(inference.router, responses=protocol_refusals)
    app.include_router(inference.probes)
    app.include_router(health.router)
    app.include_router(problem_pages.router)
    app.include_router(root.router)
    return app
