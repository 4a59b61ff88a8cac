"""A training loop written the usual way, which ours is measured against.

A PIL image for each sample, torchvision's transforms, a DataLoader, float32 in rows of channels, the loss task by task,
its value asked for at every step. LwM makes its maps with hooks and passes of their own, as the program of FACIL does
(approach/lwm.py): three forwards, and two backwards before the one that trains. There the maps have no gradient; here
the student's has one, which the term is of no use without (LOSSES).
"""

import copy
import warnings
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.parts.plainlosses import attention_distance, plain_loss
from trainer.learning.data import ImageSet
from trainer.networks import EvaluationTransform, IncrementalNetwork

WORKERS = 1  # the fastest of 0, 1 and 2 on two processors


@dataclass(frozen=True)
class Habits:
    """How the loop goes about it."""

    strategy: str
    learning_rate: float
    minibatch: int
    momentum: float = 0.0  # the published schedule has none
    workers: int = WORKERS  # of the DataLoader
    drop_last: bool = False  # the minibatch that is left over; where it is tiny, its statistics mislead normalisation
    whole_maps: bool = True  # gradients of a map go back through all of the network, else to the stage only


class PlainImages(Dataset[tuple[Tensor, int]]):
    """Arrays in memory, a PIL image of each sample asked for: as torchvision has CIFAR."""

    def __init__(self, images: ImageSet, transform: EvaluationTransform) -> None:
        """Hold the images as [images, h, w, channels]."""
        side = transform.image_size
        self._arrays = images.pixels.permute(0, 2, 3, 1).contiguous().numpy()
        self._targets = images.targets.tolist()
        self._transform = transforms.Compose(
            [
                transforms.RandomCrop(side, padding=side // 8),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(transform.mean, transform.std),
            ]
        )

    def __len__(self) -> int:
        """How many images there are."""
        return len(self._targets)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        """One image, changed at random, and its target."""
        return self._transform(Image.fromarray(self._arrays[position])), self._targets[position]


class GradCam:
    """Grad-CAM maps of a network by hooks on its last convolutional stage."""

    def __init__(self, network: IncrementalNetwork, *, whole: bool) -> None:
        """Hook the stage; with ``whole`` each map costs a backward through all of the network."""
        assert network.stage is not None
        self._network = network
        self._whole = whole
        network.backbone.get_submodule(network.stage).register_forward_hook(self._keep)

    def _keep(self, _stage: nn.Module, _inputs: object, activation: Tensor) -> None:
        self.activation = activation
        if activation.requires_grad and self._whole:
            activation.register_hook(self._keep_gradient)  # type: ignore[no-untyped-call]

    def _keep_gradient(self, gradient: Tensor) -> None:
        self.gradient = gradient

    def __call__(
        self, images: Tensor, classes: Tensor | None = None, *, lasting: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Maps [batch, h, w] of the classes, by default the likeliest, and logits; ``lasting`` maps have a gradient."""
        logits = self._network(images)
        classes = logits.argmax(dim=1) if classes is None else classes
        gradient = self._gradient(logits.gather(1, classes[:, None]).sum(), lasting=lasting)
        maps = F.relu((gradient.mean(dim=(2, 3), keepdim=True) * self.activation).sum(dim=1))
        return (maps if lasting else maps.detach()), logits.detach()

    def _gradient(self, score: Tensor, *, lasting: bool) -> Tensor:
        if not self._whole:
            return torch.autograd.grad(score, self.activation, create_graph=lasting)[0]
        self._network.zero_grad()
        with warnings.catch_warnings():  # of gradients that hold their graph: the next zero_grad lets go of them
            warnings.simplefilter("ignore")
            score.backward(create_graph=lasting)  # type: ignore[no-untyped-call]
        return self.gradient


class PlainLoop:
    """One task's training, epoch by epoch; student and teacher are changed in place."""

    def __init__(
        self,
        student: IncrementalNetwork,
        teacher: IncrementalNetwork | None,
        images: ImageSet,
        transform: EvaluationTransform,
        *,
        habits: Habits,
        device: torch.device,
    ) -> None:
        """Get everything ready; the last of the student's tasks is the new one."""
        self._habits, self._device = habits, device
        self.student = student.to(device)
        self._teacher = None if teacher is None else teacher.to(device).eval()
        self._loader = DataLoader(
            PlainImages(images, transform),
            batch_size=habits.minibatch,
            shuffle=True,
            drop_last=habits.drop_last,
            num_workers=habits.workers,
            persistent_workers=habits.workers > 0,
            pin_memory=device.type == "cuda",
        )
        # without rehearsal the old heads stay as they are (LOSSES, LwF-x)
        trained = [*student.backbone.parameters(), *student.heads[-1].parameters()]
        self._optimiser = torch.optim.SGD(trained, lr=habits.learning_rate, momentum=habits.momentum)
        self._looks = habits.strategy.startswith("lwm") and teacher is not None
        if self._looks:
            self._student_cam = GradCam(student, whole=habits.whole_maps)
            self._teacher_cam = GradCam(self._the_teacher, whole=habits.whole_maps)

    def epoch(self) -> float:
        """Show every image once; the mean loss."""
        self.student.train()
        losses = [self._step(images.to(self._device), targets.to(self._device)) for images, targets in self._loader]
        return sum(losses) / len(losses)

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """The loss of normalised images [batch, channels, h, w]."""
        if self._looks:
            return self._looking_loss(images, targets)
        teacher_logits = None
        if self._teacher is not None:
            with torch.no_grad():
                teacher_logits = self._teacher(images)
        return self._kept(self.student(images), teacher_logits, targets)

    @property
    def _the_teacher(self) -> IncrementalNetwork:
        assert self._teacher is not None
        return self._teacher

    def _step(self, images: Tensor, targets: Tensor) -> float:
        loss = self.loss(images, targets)
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        return loss.item()

    def _looking_loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """Maps of both for the teacher's likeliest class, and the student's logits by a pass of their own."""
        teacher_maps, teacher_logits = self._teacher_cam(images)
        student_maps, _ = self._student_cam(images, teacher_logits.argmax(dim=1), lasting=True)
        self.student.zero_grad()
        loss = self._kept(self.student(images), teacher_logits, targets)
        return loss + attention_distance(student_maps, teacher_maps)

    def _kept(self, student_logits: Tensor, teacher_logits: Tensor | None, targets: Tensor) -> Tensor:
        return plain_loss(
            self._habits.strategy,
            student_logits=student_logits,
            teacher_logits=teacher_logits,
            targets=targets,
            task_sizes=self.student.task_sizes,
        )


def successor(network: IncrementalNetwork, *, new_classes: int) -> IncrementalNetwork:
    """A copy that has a head for one more task, in float32 and rows of channels."""
    student = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    student.requires_grad_(True)
    student.add_task(new_classes)
    return student
