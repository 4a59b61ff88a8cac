"""Probes: is the process alive, and can it do its work."""

import anyio
from fastapi import APIRouter, Response
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from api.schemas.health import HealthOut
from api.service import Service, ServiceDep
from storage import safetext
from storage.waking import BrokerUnreachable

router = APIRouter(tags=["probes"])

CHECK_SECONDS = 5.0
OK, DEGRADED = "ok", "degraded"


@router.get("/livez")
async def live() -> HealthOut:
    """Tell that the process answers; neither the database nor the broker is asked."""
    return HealthOut(status=OK)


@router.get("/readyz", responses={503: {"model": HealthOut, "description": "Not ready; checks say why."}})
async def ready(response: Response, service: ServiceDep) -> HealthOut:
    """Tell whether requests can be served: database, broker, and the versions in service; no model is needed.

    ``degraded`` means ready, but with a model whose current version does not load. An earlier version answers for
    that model, or none.
    """
    is_ready, checks = await readiness(service)
    response.status_code = 200 if is_ready else 503
    well = OK if all(state == OK for state in checks.values()) else DEGRADED
    return HealthOut(status=well if is_ready else "unavailable", checks=checks)


async def readiness(service: Service) -> tuple[bool, dict[str, str]]:
    """Whether requests can be served, and what each check found."""
    try:
        with anyio.fail_after(CHECK_SECONDS):
            checks = await anyio.to_thread.run_sync(_check, service, abandon_on_cancel=True)
    except TimeoutError:
        checks = {"service": f"no answer from database and broker within {CHECK_SECONDS:g} s"}
    if not service.engine.registry.is_warm:
        checks["versions"] = "being loaded"
    if service.draining.is_set():
        checks["service"] = "shutting down"
    return all(state == OK for name, state in checks.items() if not name.startswith("model ")), checks


def _check(service: Service) -> dict[str, str]:
    checks = {"database": OK, "broker": OK}
    try:
        with service.database.read() as connection:
            connection.execute(text("SELECT 1"))
    except SQLAlchemyError as error:
        checks["database"] = str(error).splitlines()[0]
    try:
        service.broker.ping()
    except BrokerUnreachable as error:
        checks["broker"] = str(error)
    checks = {name: safetext.discreet(state) for name, state in checks.items()}
    # Shown, but it does not make the process unready: other models answer, and the API is needed for the repair.
    return checks | {f"model {name}": fault for name, fault in service.engine.registry.faults.items()}
