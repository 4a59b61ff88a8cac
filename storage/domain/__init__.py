"""The nouns of the service as frozen records; standard library only.

Every stage of the way – upload, batch, increment, version, serving – reads the record the stage before it wrote.
"""

from storage.domain.access import AuditEntry, Key, Scope
from storage.domain.batches import Batch, BatchStatus, ClassCount, Ignored, Image, Pack, Reject, Relabel, Split
from storage.domain.edits import Edit, EditedTasks, Merge
from storage.domain.increments import (
    UNFINISHED,
    Attempt,
    Event,
    Increment,
    IncrementReport,
    IncrementStatus,
    KnownClasses,
    Promotion,
    StoredCheckpoint,
    Unshown,
)
from storage.domain.models import KeepPredictions, Memory, Model, PromotionRecord, Retention
from storage.domain.names import AS_HELD, Names
from storage.domain.values import Json, Page, new_id, now
from storage.domain.versions import Export, KeptImage, Prediction, StoredFile, Version

__all__ = [
    "AS_HELD",
    "UNFINISHED",
    "Attempt",
    "AuditEntry",
    "Batch",
    "BatchStatus",
    "ClassCount",
    "Edit",
    "EditedTasks",
    "Event",
    "Export",
    "Ignored",
    "Image",
    "Increment",
    "IncrementReport",
    "IncrementStatus",
    "Json",
    "KeepPredictions",
    "KeptImage",
    "Key",
    "KnownClasses",
    "Memory",
    "Merge",
    "Model",
    "Names",
    "Pack",
    "Page",
    "Prediction",
    "Promotion",
    "PromotionRecord",
    "Reject",
    "Relabel",
    "Retention",
    "Scope",
    "Split",
    "StoredCheckpoint",
    "StoredFile",
    "Unshown",
    "Version",
    "new_id",
    "now",
]
