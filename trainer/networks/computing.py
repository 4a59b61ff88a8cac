"""`python -m trainer.networks.computing DEVICE THREADS`: compute versions for a process that imports no torch.

Orders come on standard input, answers go to standard output. Both are frames (`trainer.networks.frames`). Orders are
answered one after the other:

load: ``key``, ``folder``. Answer: ``classes``, ``channels``, ``image_size`` of the version in the folder.
compute: ``key``, ``images``, ``dtype`` (uint8, or float32 in 0 … 1), and the pixels [images, channels, size, size] in C
order. Answer: the probabilities as bytes, float32 [images, classes] in C order.
drop: ``key``. The version is forgotten.

Whatever fails is answered with ``error``, its text. The first answer comes without an order, when the device works. The
end of standard input ends the process.

torch is imported late: before that, standard output has been kept for the answers, and the parent is watched.
"""

import json
import logging
import os
import select
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from trainer.networks.frames import LENGTH, Header, encode

if TYPE_CHECKING:
    from trainer.networks.versions import LoadedVersion

FLOAT_BYTES = 4

log = logging.getLogger(__name__)


class Computer:
    """The loaded versions, on one device."""

    def __init__(self, device: str) -> None:
        """Raise an error of torch's if the device cannot be used."""
        import torch

        self._device = torch.zeros(1, device=device).device
        self._versions: dict[str, LoadedVersion] = {}
        self._orders = {"load": self._load, "compute": self._compute, "drop": self._drop}

    def answer(self, order: Header, data: bytearray) -> tuple[Header, bytearray]:
        """The answer to an order: header and bytes. Raises `torch.AcceleratorError`."""
        import torch

        try:
            return self._orders[order["order"]](order, data)
        except torch.AcceleratorError:  # nothing can be computed on the GPU any more, but by a new process
            raise
        except Exception as error:
            log.exception("%s failed", order)
            return {"error": _text(error)}, bytearray()

    def _load(self, order: Header, _data: bytearray) -> tuple[Header, bytearray]:
        import torch

        from trainer.networks.versions import load_version

        version = load_version(Path(order["folder"]), device=self._device)
        version.network.requires_grad_(False).to(memory_format=torch.channels_last)
        self._versions[order["key"]] = version
        transform = version.transform
        form = {"classes": len(version.labels), "channels": transform.channels, "image_size": transform.image_size}
        return form, bytearray()

    def _compute(self, order: Header, data: bytearray) -> tuple[Header, bytearray]:
        import torch

        if (version := self._versions.get(order["key"])) is None:
            raise ValueError(f"no version {order['key']!r} is loaded")
        transform = version.transform
        shape = (order["images"], transform.channels, transform.image_size, transform.image_size)
        with torch.inference_mode():
            pixels = torch.frombuffer(data, dtype=getattr(torch, order["dtype"])).view(shape)
            images = transform.normalise(pixels.to(self._device))
            logits = version.network(images.contiguous(memory_format=torch.channels_last))
            probabilities = logits.float().softmax(dim=1)
            answer = bytearray(probabilities.numel() * FLOAT_BYTES)
            torch.frombuffer(answer, dtype=torch.float32).view_as(probabilities).copy_(probabilities)
        return {}, answer

    def _drop(self, order: Header, _data: bytearray) -> tuple[Header, bytearray]:
        import torch

        self._versions.pop(order["key"], None)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()  # the memory may be needed by another process
        return {}, bytearray()


def main() -> int:
    """Answer orders until standard input ends; the exit status."""
    device, threads = sys.argv[1], int(sys.argv[2])
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # any other output must not mix with the answers
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group; the parent may have requests to finish
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        import torch

        torch.set_num_threads(threads)
        computer = Computer(device)
    except Exception as error:
        log.exception("%s cannot be used", device)
        _send(answers, {"error": f"{device} cannot be used: {_text(error)}"}, bytearray())
        return 1
    _send(answers, {"torch": torch.__version__}, bytearray())
    while _answer_next(computer, sys.stdin.buffer, answers):
        pass
    return 0


def _answer_next(computer: Computer, orders: BinaryIO, answers: BinaryIO) -> bool:
    """Answer one order; whether there was one. A function, so that no images stay in memory while it waits."""
    if len(length := orders.read(LENGTH.size)) < LENGTH.size:
        return False
    order: Header = json.loads(orders.read(*LENGTH.unpack(length)))
    data = bytearray(order["bytes"])
    if orders.readinto(data) < len(data):  # type: ignore[attr-defined]
        return False
    _send(answers, *computer.answer(order, data))
    return True


def _send(answers: BinaryIO, header: Header, data: bytearray) -> None:
    answers.write(encode(header, len(data)))
    answers.write(data)
    answers.flush()


def _text(error: Exception) -> str:
    """The text of an error, with its type where that tells more."""
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def _end_with_parent() -> None:
    """Wait for the end of standard input, which a hang-up tells also while an order is computed."""
    poll = select.poll()
    poll.register(sys.stdin.fileno(), 0)
    poll.poll()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
