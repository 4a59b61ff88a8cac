"""Every hyper-parameter of an increment, with its range, its default and the source of the default."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from losses import strategies
from losses.hyperparameters import HYPER_PARAMETERS, HyperParameters

Preset = Literal["recommended", "quick", "paper"]
ScheduleKind = Literal["constant", "cosine", "one-cycle", "plateau"]
AugmentationKind = Literal["auto", "none", "crop", "crop-flip"]
Sampling = Literal["auto", "uniform", "class-balanced"]
Selection = Literal["herding", "random"]
Precision = Literal["auto", "float32", "bfloat16"]

WEIGHT_FILE = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}\.(safetensors|pth|pt)$"


class _Training(BaseModel):
    """The fields of a recipe that are not hyper-parameters of the objective."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    preset: Annotated[
        Preset,
        Field(
            description="Values to start from: recommended, quick for demonstrations, or paper: the published schedule."
        ),
    ] = "recommended"
    epochs: Annotated[
        int,
        Field(ge=1, le=2000, description="Passes over the training images. 10: measured (docs/benchmarks.md)."),
    ] = 10
    least_steps: Annotated[
        int,
        Field(
            ge=0,
            le=100_000,
            description="Optimiser steps at least: with few images there are more epochs than asked for; 0 for none. A "
            "recipe that names epochs and not this means just these epochs. 40: 20 images a class gained 9 points on "
            "new classes and 5 on old ones over 10 steps.",
        ),
    ] = 40
    minibatch: Annotated[
        int,
        Field(ge=2, le=4096, description="Images of one optimiser step. 64: the published schedule's (LOSSES)."),
    ] = 64
    learning_rate: Annotated[
        float, Field(gt=0, le=10, description="Highest learning rate of SGD. 0.1: He et al. 2016 §4.2.")
    ] = 0.1
    momentum: Annotated[
        float, Field(ge=0, lt=1, description="Momentum of SGD, 0 for none. 0.9: He et al. 2016 §4.2.")
    ] = 0.9
    weight_decay: Annotated[
        float, Field(ge=0, le=1, description="L2 penalty. 5e-4: Zagoruyko and Komodakis, arXiv:1605.07146 §3.")
    ] = 5e-4
    schedule: Annotated[
        ScheduleKind,
        Field(
            description="After the warm-up the learning rate stays (constant) or falls to 0 along half a cosine "
            "(cosine: Loshchilov and Hutter, arXiv:1608.03983, without restarts); one-cycle brings its own "
            "warm-up and moves momentum against the rate (Smith and Topin, arXiv:1708.07120); plateau divides the "
            "rate whenever the classification loss of a part of the training images that is "
            "held back has stopped falling, goes on from the best weights, and ends with them (LOSSES). one-cycle: "
            "measured (docs/benchmarks.md)."
        ),
    ] = "one-cycle"
    patience: Annotated[
        int, Field(ge=1, le=1000, description="Plateau: epochs in a row without improvement. 5: published schedule.")
    ] = 5
    rate_divisor: Annotated[
        float, Field(gt=1, le=1000, description="Plateau: what the rate is divided by. 3: published schedule.")
    ] = 3.0
    lowest_rate: Annotated[
        float, Field(gt=0, le=1, description="Plateau: training ends below it. 1e-4: published schedule.")
    ] = 1e-4
    validation_share: Annotated[
        float,
        Field(
            gt=0,
            le=0.5,
            description="Plateau: share of the training images, chosen by hash, that is held back to judge by. "
            "0.1: published schedule.",
        ),
    ] = 0.1
    warmup_epochs: Annotated[
        float,
        Field(
            ge=0,
            le=100,
            description="Epochs in which the learning rate rises linearly from 0, at most half of all; one-cycle has "
            "its own. 1: own choice, after Goyal et al., arXiv:1706.02677 §2.2.",
        ),
    ] = 1.0
    gradient_clip: Annotated[
        float | None,
        Field(gt=0, description="Largest norm of the gradient, null for none. 5: own choice, against the first steps."),
    ] = 5.0
    augmentation: Annotated[
        AugmentationKind,
        Field(
            description="Training images shifted (crop) and mirrored (flip), as He et al. 2016 §4.2; "
            "auto does not mirror grey images, which are often digits or documents."
        ),
    ] = "auto"
    precision: Annotated[
        Precision,
        Field(
            description="Of convolutions and linear layers in training (weights stay float32): bfloat16 or float32; "
            "auto takes bfloat16 where the processor has instructions for it (docs/benchmarks.md)."
        ),
    ] = "auto"
    seed: Annotated[
        int,
        Field(
            ge=0,
            lt=2**32,
            description="Of initial weights, order, augmentation and random exemplars; each increment of a line of "
            "versions draws anew. 0: any will do.",
        ),
    ] = 0
    initial_weights: Annotated[
        str | None,
        Field(
            pattern=WEIGHT_FILE,
            description="File in the server's weights folder to start a new backbone from, at the first increment and "
            "for joint training: .safetensors or .pth; null: from chance.",
        ),
    ] = None
    sampling: Annotated[
        Sampling,
        Field(
            description="Each image once an epoch (uniform), or every class equally often (class-balanced: "
            "Kang et al., arXiv:1910.09217 §3), so that exemplars weigh as much as new images; auto is class-balanced "
            "wherever images of old classes are shown, else uniform."
        ),
    ] = "auto"
    exemplar_selection: Annotated[
        Selection,
        Field(
            description="Which images rehearsal keeps: those whose features' mean stays nearest to their class's "
            "(herding: Rebuffi et al., arXiv:1611.07725, Alg. 4), or any (random)."
        ),
    ] = "herding"
    align_weights: Annotated[
        bool,
        Field(
            description="After training, scale the new head's rows to the mean norm of the old ones (Zhao et al., "
            "arXiv:1911.07053). Linear heads only."
        ),
    ] = False

    def objective(self, strategy: str) -> dict[str, Any]:
        """Keywords for ``losses.objective(strategy, …)``."""
        return {name: getattr(self, name) for name in strategies.get(strategy).hyper}


if TYPE_CHECKING:

    class Recipe(_Training, HyperParameters):
        """The recipe as type checkers see it: the fields of training and of the objective."""

else:
    Recipe = create_model(
        "Recipe",
        __base__=_Training,
        __module__=__name__,
        __doc__="All hyper-parameters of one increment; the defaults are the preset ``recommended``.",
        **{
            name: (
                parameter.type,
                Field(default=parameter.default, description=parameter.description, **parameter.bounds),
            )
            for name, parameter in HYPER_PARAMETERS.items()
        },
    )
