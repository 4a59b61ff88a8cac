"""Metrics for Prometheus to scrape."""

from collections.abc import Iterable

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from api.http.guarded_route import Guarded
from api.http.rights import needs
from api.measures import shared_folder
from api.service import Service, ServiceDep
from storage.domain import IncrementStatus, Scope
from storage.material import references
from storage.work import increments

router = APIRouter(tags=["probes"], route_class=Guarded)


@router.get(
    "/metrics",
    dependencies=[needs(Scope.PREDICT)],
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}},
)
def metrics(service: ServiceDep) -> Response:
    """Metrics in the text format of Prometheus: of all processes of the API, and of the increments."""
    gathered = CollectorRegistry()
    if shared_folder() is None:
        gathered.register(service.measures.registry)
    else:
        MultiProcessCollector(gathered)  # type: ignore[no-untyped-call]
    gathered.register(Increments(service))
    return Response(generate_latest(gathered), media_type=CONTENT_TYPE_LATEST)


class Increments(Collector):
    """A collector of the increments' state, read from the database at each scrape."""

    def __init__(self, service: Service) -> None:
        """Read the database of ``service``."""
        self._database = service.database

    def collect(self) -> Iterable[Metric]:
        """Increments by state, training speed in images/s, and blobs to delete; nothing if the database is down."""
        try:
            with self._database.read() as connection:
                counts = increments.counts(connection)
                speeds = increments.speeds(connection)
                awaiting = references.awaiting_deletion(connection)
        except SQLAlchemyError:
            return
        states = GaugeMetricFamily("accrete_increments", "Increments by state.", labels=["state"])
        for state in IncrementStatus:
            states.add_metric([state.value], counts.get(state, 0))
        yield states
        speed = GaugeMetricFamily("accrete_training_images_per_second", "Speed of what trains now.", labels=["model"])
        for model, images_per_second in speeds.items():
            speed.add_metric([model], images_per_second)
        yield speed
        yield GaugeMetricFamily(
            "accrete_blobs_awaiting_deletion",
            "Blobs let go of and not deleted yet; it should not grow.",
            value=awaiting,
        )
