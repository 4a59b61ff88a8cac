"""Metrics: of one version, and along its line of ancestors."""

from typing import Any

from pydantic import BaseModel


class VersionMetricsOut(BaseModel):
    """Every metric of a version under ``tag`` (task-agnostic) and ``taw`` (task-aware); see docs/metrics.md."""

    model: str
    version: int
    classes: list[str]
    tasks: list[list[str]]
    test_images: list[int | None]
    tag: dict[str, Any]
    taw: dict[str, Any]
    imbalance: dict[str, Any] | None


class ModelMetricsOut(BaseModel):
    """The accuracy matrix and every curve along a version's line of ancestors."""

    model: str
    version: int
    versions: list[int]
    tasks: list[list[str]]
    tag: dict[str, Any]
    taw: dict[str, Any]
