"""Probes: whether the service is alive and ready."""

from pydantic import BaseModel


class HealthOut(BaseModel):
    """A probe's answer."""

    status: str
    checks: dict[str, str] = {}
