"""`accrete batches` and `accrete images`: collect a batch piecemeal, and look at what is in it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.commands.console import emit, failure, service
from api.commands.options import AsJson, BatchId, ImageId, Model, Split, Url
from api.commands.tables import labels, table

if TYPE_CHECKING:
    from api.client.documents import Batch

batches = typer.Typer(help="Collect labelled images, and look at what was collected.", no_args_is_help=True)
images = typer.Typer(help="Add images to a batch; list, look at and relabel stored ones.", no_args_is_help=True)


@batches.command("create")
def create_batch(
    model: Model,
    source: Annotated[
        Path | None, typer.Argument(help="Folder or archive; left out, the batch is filled by `accrete images add`.")
    ] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Create a batch; no increment learns from it yet."""
    with service(url) as client:
        batch = client.create_batch(model, source)
    emit(
        batch if as_json else None, f"{_described(batch)}\n\naccrete push {model} --batch {batch['id']} learns from it"
    )


@batches.command("list")
def list_batches(model: Model, url: Url = None, as_json: AsJson = False) -> None:
    """List what was collected for a model, latest first."""
    with service(url) as client:
        items = list(client.batches(model))
    rows = [
        [
            item["id"],
            item["created_at"][:19],
            item["status"],
            item["images"],
            item["reject_count"],
            labels([count["label"] for count in item["classes"]]),
        ]
        for item in items
    ]
    emit({"items": items} if as_json else None, table(["batch", "when", "status", "images", "bad", "classes"], rows))


@batches.command("show")
def show_batch(
    batch_id: BatchId,
    all_rejects: Annotated[bool, typer.Option("--all-rejects", help="Name each bad file, not 100 at most.")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Show a batch: its classes with their images, and the files that were left out with the reason."""
    with service(url) as client:
        batch = client.batch(batch_id)
        if all_rejects:
            batch["rejects"] = list(client.rejects(batch_id))
    emit(batch if as_json else None, _described(batch))


@images.command("add")
def add_images(
    batch_id: BatchId,
    label: Annotated[str, typer.Argument(help="Their class.")],
    files: Annotated[list[Path], typer.Argument(help="Images.", exists=True, dir_okay=False)],
    split: Split = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Add images of one class to an open batch."""
    with service(url) as client:
        added = client.add_images(batch_id, label, files, split=split)
    text = "\n".join(f"{image['id']}  {image['filename']}" for image in added)
    emit({"items": added} if as_json else None, text)


@images.command("list")
def list_images(
    model: Model,
    label: Annotated[str | None, typer.Option(help="Only images of this class.")] = None,
    split: Annotated[str | None, typer.Option(help="Only images of this side: train or test.")] = None,
    exemplar_of: Annotated[int | None, typer.Option(help="Only what this version keeps as exemplars.")] = None,
    text: Annotated[str | None, typer.Option(help="Only files with this in their name.")] = None,
    batch: Annotated[str | None, typer.Option(help="Only images of this batch.")] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List the stored images of a model."""
    with service(url) as client:
        which, of = (client.images, model) if batch is None else (client.batch_images, batch)
        items = list(which(of, label=label, split=split, exemplar_of=exemplar_of, text=text))
    rows = [[item["id"], item["label"], item["split"] or "", item["bytes"], item["filename"]] for item in items]
    emit({"items": items} if as_json else None, table(["image", "class", "side", "bytes", "file"], rows))


@images.command("show")
def show_image(
    image_id: ImageId,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write; default: output.")] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Write a stored image as it was uploaded."""
    if output is None and (as_json or sys.stdout.isatty()):
        raise failure("an image is no text: name a file with --output")
    with service(url) as client:
        data = client.image(image_id)
    if output is None:
        sys.stdout.buffer.write(data)
        return
    output.write_bytes(data)
    emit({"id": image_id, "file": str(output), "bytes": len(data)} if as_json else None, f"wrote {output}")


@images.command("relabel")
def relabel_image(
    image_id: ImageId,
    label: Annotated[str, typer.Argument(help="Its class from now on.")],
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Move a stored image to another class; versions stay as they are."""
    with service(url) as client:
        moved = client.relabel_image(image_id, label)
    emit(moved if as_json else None, f"{moved['former_label']} → {moved['label']}. {moved['note']}")


def _described(batch: "Batch") -> str:
    head = f"batch {batch['id']} of {batch['model']}: {batch['status']}, {batch['images']} images"
    rows = [[count["label"], count["train"], count["test"]] for count in batch["classes"]]
    parts = [head, *([table(["class", "train", "test"], rows)] if rows else [])]
    if batch["rejects"]:
        parts.append(table(["left out", "because"], [[one["file"], one["reason"]] for one in batch["rejects"]]))
    shown = len(batch["rejects"])
    if shown < batch["reject_count"]:
        parts.append(
            f"these are {shown} of {batch['reject_count']:,} files that were left out: "
            f"accrete batches show {batch['id']} --all-rejects names all"
        )
    return "\n\n".join(parts)
