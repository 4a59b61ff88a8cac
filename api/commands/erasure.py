"""`accrete erase`: erase images and versions; metrics stay."""

import typer

from api.commands.console import emit, service
from api.commands.options import AsJson, BatchId, ImageId, Label, Model, Url, Version, Yes

app = typer.Typer(help="Take images back, wherever they are kept, and delete versions.", no_args_is_help=True)


@app.command("image")
def erase_image(image_id: ImageId, yes: Yes = False, url: Url = None, as_json: AsJson = False) -> None:
    """Erase one image."""
    _confirm(f"Erase image {image_id}?", yes=yes)
    with service(url) as client:
        client.erase_image(image_id)
    emit({"erased": image_id} if as_json else None, f"erased image {image_id}")


@app.command("batch")
def erase_batch(batch_id: BatchId, yes: Yes = False, url: Url = None, as_json: AsJson = False) -> None:
    """Erase a batch with all its images."""
    _confirm(f"Erase batch {batch_id} with all its images?", yes=yes)
    with service(url) as client:
        client.erase_batch(batch_id)
    emit({"erased": batch_id} if as_json else None, f"erased batch {batch_id}")


@app.command("class")
def erase_class(
    model: Model,
    label: Label,
    yes: Yes = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Erase every stored image of a class."""
    _confirm(f"Erase every image of {label} in {model}?", yes=yes)
    with service(url) as client:
        count = client.erase_class(model, label)
    emit({"erased": count} if as_json else None, f"erased {count} images of {label}")


@app.command("version")
def erase_version(model: Model, version: Version, yes: Yes = False, url: Url = None, as_json: AsJson = False) -> None:
    """Delete a version that is neither in service nor the head, with its files; its metrics stay."""
    _confirm(f"Delete version {version} of {model}?", yes=yes)
    with service(url) as client:
        client.delete_version(model, version)
    emit({"erased": version} if as_json else None, f"deleted version {version} of {model}")


def _confirm(question: str, *, yes: bool) -> None:
    if not yes:
        typer.confirm(question, abort=True, err=True)
