"""Names of classes: a class is displayed by its name and held by its label, which never changes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from storage.domain.batches import Batch, Image
from storage.domain.values import Json
from storage.domain.versions import Version


@dataclass(frozen=True, slots=True)
class Names:
    """Names of the classes of a model that were renamed, by label; every other class is called by its label.

    No two classes of a model have one name. The label of a renamed class may be the name of another.
    """

    renamed: Mapping[str, str] = field(default_factory=dict)

    def name(self, label: str) -> str:
        """What a class is called."""
        return self.renamed.get(label, label)

    def all(self, labels: Iterable[str]) -> tuple[str, ...]:
        """What some classes are called."""
        return tuple(map(self.name, labels))

    def label(self, name: str) -> str | None:
        """By which label a class of that name is, or would be, held; None if it is the former name of another class."""
        for label, given in self.renamed.items():
            if given == name:
                return label
        return name if name not in self.renamed else None

    def found(self, name: str) -> str:
        """The label to look for; a former name is that of no class, and the empty text finds none."""
        return self.label(name) or ""

    def version(self, version: Version) -> Version:
        """A version whose classes are called by their names."""
        if not self.renamed:
            return version
        merged = {self.name(label): self.name(held) for label, held in version.merged.items()}
        return replace(version, tasks=tuple(map(self.all, version.tasks)), merged=merged)

    def batch(self, batch: Batch) -> Batch:
        """A batch whose classes are called by their names."""
        if not self.renamed:
            return batch
        counts = (replace(count, label=self.name(count.label)) for count in batch.classes)
        return replace(batch, classes=tuple(sorted(counts, key=lambda count: count.label)))

    def image(self, image: Image) -> Image:
        """An image whose class is called by its name."""
        return replace(image, label=self.name(image.label)) if self.renamed else image

    def metrics(self, document: Json) -> Json:
        """A version's metrics in which classes are called by their names."""
        if not self.renamed:
            return document
        named: dict[str, Any] = dict(document)
        for form in ("tag", "taw"):
            of_classes = {self.name(label): found for label, found in document[form]["per_class"].items()}
            named[form] = {**document[form], "per_class": of_classes}
        return named


AS_HELD = Names()  # no class was renamed
