"""From an uploaded archive to stored images: decoded once, settled, and packed."""

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

from storage.archives.members import Content, Member
from storage.archives.reading import ArchiveLimits, read, scan
from storage.blobs.store import BlobStore
from storage.domain import Batch, Image, Reject, new_id
from storage.settings import Settings
from trainer.ingestion.decoding import DecodedImage, DecodingOptions, decoded
from trainer.ingestion.originals import Originals
from trainer.ingestion.packing import store
from trainer.ingestion.rows import Rows
from trainer.ingestion.splits import Ingested, settle
from trainer.networks.pictures import Form
from trainer.reporting import Report

_SMALL = 2 << 20  # bytes; a smaller archive is decoded before other processes would have started


def ingest_archive(
    batch: Batch,
    *,
    blobs: BlobStore,
    settings: Settings,
    processes: int,
    form: Form,
    folder: Path,
    report: Report,
) -> Ingested:
    """Decode the images of a batch's archive, store them and pack them; the archive's blob is kept.

    Raises `BatchInvalid` as `settle` does, for example if too many files are not images, and the errors of
    `storage.archives.reading`.
    """
    assert batch.archive is not None
    path = folder / "archive"
    with report.opaque():
        blobs.fetch(batch.archive, path)
        index = scan(path, limits=ArchiveLimits.of(settings))
    stored: list[Image] = []
    rejects = list(index.rejects)
    numbers: dict[str, int] = {}
    originals = Originals(folder, archive=path if index.is_stored else None)
    underway = deque[Member]()  # read, and not decoded yet

    def contents() -> Iterator[Content]:
        for member, content in read(path, index):
            underway.append(member)
            yield content

    with Rows(folder, row_bytes=form.row_bytes) as rows:
        options = DecodingOptions(rows.path, form, settings.max_image_pixels)
        groups = originals.groups(contents())
        found = decoded(groups, options, processes=processes if path.stat().st_size > _SMALL else 1)
        for number, finding in enumerate(chain.from_iterable(found)):
            member = underway.popleft()
            if finding.fault is not None:
                rejects.append(Reject(member.name, finding.fault))
            else:
                image = _image(batch, member, finding)
                stored.append(image)
                numbers[image.id] = number
            report.progress(step=number + 1, steps=len(index.members))
        assert not underway
        path.unlink()
        labels = {count.label for count in index.classes}
        settled = settle(stored, rejects, labels=labels, max_bad_share=settings.max_bad_share)
        with report.opaque():
            rows_at = store(
                settled.images, lambda image: rows.get(numbers[image.id]), form=form, folder=folder, blobs=blobs
            )
    with report.opaque():
        packs, files_at = originals.store([numbers[image.id] for image in settled.images], blobs)
    images = []
    for image in settled.images:
        (shard, row), (pack, offset) = rows_at[image.id], files_at[numbers[image.id]]
        label = batch.labels.get(image.label, image.label)
        images.append(replace(image, label=label, shard=shard, row=row, pack=pack, offset=offset))
    return replace(settled, images=tuple(images), packs=packs)


def _image(batch: Batch, member: Member, finding: DecodedImage) -> Image:
    return Image(
        id=new_id(),
        batch_id=batch.id,
        label=member.label,
        filename=member.name,
        digest=finding.digest,
        size=member.size,
        split=member.split,
    )
