"""What evaluating images costs beside a bare forward loop: `python -m benchmarks.evaluation`.

Logits of images of noise by `trainer.learning.learned.logits_of` (reading, normalising, collecting, looking for what
is not finite), in turn with a loop of `network(x)` on a resident minibatch of the same size, in inference mode,
channels-last.
"""

import argparse
from statistics import median

import torch

from benchmarks.parts.machine import described
from benchmarks.parts.material import noise, untaught
from benchmarks.parts.turns import Turns, ratio
from trainer.learning.increment import Architecture
from trainer.learning.learned import EVALUATION_MINIBATCH, Learned, logits_of
from trainer.reporting import SilentReport


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=20 * EVALUATION_MINIBATCH)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--network", default="resnet32")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--device", default="cpu")
    chosen = parser.parse_args()
    device = torch.device(chosen.device)
    torch.manual_seed(0)
    architecture = Architecture(chosen.network, chosen.image_size, 3)
    made = untaught("lwf", architecture=architecture, task_sizes=(10, 10))
    network = made.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = noise(chosen.images, architecture=architecture, first_class=0, classes=20)
    steps = -(-chosen.images // EVALUATION_MINIBATCH)
    side = chosen.image_size
    resident = torch.randn(EVALUATION_MINIBATCH, 3, side, side, device=device).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def bare() -> None:
        for _ in range(steps):
            network(resident)

    learned = Learned(network, made.transform)
    turns = Turns({"ours": lambda: logits_of(learned, images, report=SilentReport()), "bare": bare}, device)
    for _ in range(chosen.rounds + 1):
        turns.round()
    ours, theirs = turns.seconds["ours"][1:], turns.seconds["bare"][1:]
    share = 1 / ratio(ours, theirs)[0] * chosen.images / (steps * EVALUATION_MINIBATCH)
    print(f"{described(device=chosen.device)}; float32, {chosen.network}\n")
    print("| images/s | bare forward loop | ratio |\n|---|---|---|")
    print(f"| {chosen.images / median(ours):.0f} | {steps * EVALUATION_MINIBATCH / median(theirs):.0f} | {share:.2f} |")


if __name__ == "__main__":
    main()
