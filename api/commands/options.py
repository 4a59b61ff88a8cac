"""The options and arguments that several commands take."""

import json
from typing import Annotated, Any

import typer

from api.commands import completion
from api.commands.console import failure

Url = Annotated[
    str | None,
    typer.Option("--url", envvar="ACCRETE_URL", help="Address of the service; default: this machine, port 8000."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Model = Annotated[str, typer.Argument(help="Name of the model.", autocompletion=completion.models)]
Version = Annotated[int, typer.Argument(help="Number of the version.", autocompletion=completion.versions)]
Label = Annotated[str, typer.Argument(help="The class.", autocompletion=completion.classes)]
BatchId = Annotated[str, typer.Argument(metavar="BATCH", help="Id of the batch.")]
ImageId = Annotated[str, typer.Argument(metavar="IMAGE", help="Id of the image.")]
IncrementId = Annotated[
    str, typer.Argument(metavar="INCREMENT", help="Id of the increment.", autocompletion=completion.increments)
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Recipe = Annotated[str | None, typer.Option(help="Hyper-parameters as JSON, such as '{\"epochs\": 10}'.")]
Strategy = Annotated[
    str | None,
    typer.Option(help="What to optimise; `accrete strategies` lists them.", autocompletion=completion.strategies),
]
Network = Annotated[
    str | None,
    typer.Option(
        help="resnet32, or a classifier of torchvision by its name.",
        autocompletion=completion.networks,
    ),
]
Retention = Annotated[
    str | None,
    typer.Option(
        help="Images to keep: all, exemplars or none.",
        autocompletion=completion.words("all", "exemplars", "none"),
    ),
]
KeepPredictions = Annotated[
    str | None,
    typer.Option(
        help="Images of predictions to keep: all or none.",
        autocompletion=completion.words("all", "none"),
    ),
]
Promote = Annotated[str | None, typer.Option(help="auto or manual.", autocompletion=completion.words("auto", "manual"))]
KnownClasses = Annotated[
    str | None,
    typer.Option(
        help="refuse, or rehearse to train on them again.",
        autocompletion=completion.words("refuse", "rehearse"),
    ),
]
Split = Annotated[
    str | None,
    typer.Option(
        help="train or test; left out, their content decides.",
        autocompletion=completion.words("train", "test"),
    ),
]


def parsed_recipe(text: str | None) -> dict[str, Any] | None:
    """The value of --recipe, parsed; fails if it is not a JSON object."""
    if text is None:
        return None
    try:
        recipe = json.loads(text)
    except json.JSONDecodeError as error:
        raise failure(f"--recipe is no JSON ({error}); expected something like '{{\"epochs\": 10}}'") from error
    if not isinstance(recipe, dict):
        raise failure(f"--recipe must be a JSON object such as '{{\"epochs\": 10}}', got {text}")
    return recipe
