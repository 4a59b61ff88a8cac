"""From an uploaded archive to stored images: decoded once, settled, and packed."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path

from storage.archives import ArchiveLimits, read, scan
from storage.blobs import BlobStore
from storage.domain import Batch, Image, Reject, Split, new_id
from storage.settings import Settings
from trainer.networks.transforms import ImageRejected
from trainer.packing import Form, Rows, store
from trainer.sides import Ingested, settle

_IN_FLIGHT = 64  # images decoded ahead; bounds memory whatever the archive holds


def ingest_archive(
    batch: Batch,
    *,
    blobs: BlobStore,
    settings: Settings,
    threads: int,
    form: Form,
    folder: Path,
    advanced: Callable[[int, int], None],
) -> Ingested:
    """Decode the images of a batch's archive, store them and pack them; the archive itself stays where it is.

    Raises `BatchInvalid` when too many files are no images, and what `storage.archives` raises.
    """
    assert batch.archive is not None
    path = folder / "archive"
    blobs.fetch(batch.archive, path)
    index = scan(path, limits=ArchiveLimits.of(settings))
    stored: list[Image] = []
    rejects = list(index.rejects)

    def examine(number: int, label: str, name: str, split: Split | None, data: bytes) -> Image | Reject:
        try:
            rows.put(number, form.row(data, max_pixels=settings.max_image_pixels))
        except ImageRejected as rejected:
            return Reject(name, str(rejected))
        digest = blobs.put(data)
        image = Image(
            id=new_id(), batch_id=batch.id, label=label, filename=name, digest=digest, size=len(data), split=split
        )
        numbers[image.id] = number
        return image

    numbers: dict[str, int] = {}
    with Rows(folder, form) as rows:
        with ThreadPoolExecutor(threads) as pool:
            calls = (
                pool.submit(examine, number, member.label, member.name, member.split, data)
                for number, (member, data) in enumerate(read(path, index))
            )
            for done, result in enumerate(_in_order(calls), start=1):
                if isinstance(result, Reject):
                    rejects.append(result)
                else:
                    stored.append(result)
                advanced(done, len(index.members))
        path.unlink()
        labels = {count.label for count in index.classes}
        found = settle(stored, rejects, labels=labels, max_bad_share=settings.max_bad_share)
        packed = store(found.images, lambda image: rows.get(numbers[image.id]), form=form, folder=folder, blobs=blobs)
    return replace(found, images=packed)


def _in_order(calls: Iterator[Future[Image | Reject]]) -> Iterator[Image | Reject]:
    """Results in the order of the calls, with a bounded number of them under way."""
    waiting = deque(islice(calls, _IN_FLIGHT))
    while waiting:
        yield waiting.popleft().result()
        waiting.extend(islice(calls, 1))
