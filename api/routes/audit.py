"""The audit log, for administrators."""

from fastapi import APIRouter

from api.http.guarded_route import Guarded
from api.http.rights import needs
from api.schemas.audit import AuditEntryOut
from api.schemas.base import Cursor, Limit, PageOut
from api.service import ServiceDep
from storage.domain import Scope
from storage.requests import audit

router = APIRouter(prefix="/v1", tags=["audit"], route_class=Guarded)


@router.get("/audit", dependencies=[needs(Scope.ADMIN)])
def list_audit(service: ServiceDep, limit: Limit = 100, cursor: Cursor = None) -> PageOut[AuditEntryOut]:
    """List who asked for which change, latest first."""
    with service.database.read() as connection:
        page = audit.page(connection, limit=limit, cursor=cursor)
    items = [AuditEntryOut.model_validate(entry) for entry in page.items]
    return PageOut(items=items, next_cursor=page.next_cursor)
