"""The least that training costs: forward and backward of the student, forward of the teacher, SGD, and nothing else."""

import torch
from torch import Tensor

from trainer.networks import IncrementalNetwork
from trainer.recipes import Recipe


class BareLoop:
    """Steps on one resident minibatch of random numbers; the gradient of the logits is random numbers, too."""

    def __init__(
        self,
        student: IncrementalNetwork,
        teacher: IncrementalNetwork | None,
        *,
        recipe: Recipe,
        device: torch.device,
        precision: torch.dtype,
        fused: bool = False,
    ) -> None:
        """Bring everything to the device, in the memory format of our training."""
        self._precision, self._device = precision, device
        self._student = _placed(student, device).train()
        self._teacher = None if teacher is None else _placed(teacher, device).eval()
        side = student.image_size
        images = torch.randn(recipe.minibatch, student.channels, side, side, device=device)
        self._images = images.to(memory_format=torch.channels_last)
        logits = sum(student.task_sizes)
        self._gradient = torch.randn(recipe.minibatch, logits, device=device) / recipe.minibatch / logits
        self._optimiser = torch.optim.SGD(
            student.parameters(),
            lr=1e-3,  # small, as a gradient that never turns would bring the weights to infinity
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=recipe.momentum > 0,
            fused=fused,
        )

    @property
    def networks(self) -> tuple[IncrementalNetwork, ...]:
        """The student, and the teacher if there is one."""
        return (self._student,) if self._teacher is None else (self._student, self._teacher)

    def steps(self, count: int) -> None:
        """Take so many steps."""
        for _ in range(count):
            self._teach()
            logits = self._logits(self._student)
            self._optimiser.zero_grad(set_to_none=True)
            logits.backward(self._gradient.to(logits.dtype))  # type: ignore[no-untyped-call]
            self._optimiser.step()

    @torch.inference_mode()
    def _teach(self) -> None:
        if self._teacher is not None:
            self._logits(self._teacher)

    def _logits(self, network: IncrementalNetwork) -> Tensor:
        return forward(network, self._images, precision=self._precision)


def forward(network: IncrementalNetwork, images: Tensor, *, precision: torch.dtype) -> Tensor:
    """Logits in a precision: float32 as it is, others by autocast."""
    lower = precision != torch.float32
    with torch.autocast(images.device.type, dtype=precision if lower else None, enabled=lower):
        logits: Tensor = network(images)
    return logits


def _placed(network: IncrementalNetwork, device: torch.device) -> IncrementalNetwork:
    placed: IncrementalNetwork = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return placed
