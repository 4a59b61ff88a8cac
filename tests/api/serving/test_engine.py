"""The engine by itself: minibatches, their mates, a full queue, a deadline, and the choice of execution."""

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from api.measures import Measures
from api.serving.costs import Costs
from api.serving.execution import CPU, Device, Images, own_devices, serving_devices
from api.serving.execution.sessions import Session
from api.serving.minibatches import Batcher, BatchingThreads, PendingRequest
from storage.errors import DeadlineExceeded, Overloaded
from tests.api.worlds import eventually
from trainer.export import write_executable
from trainer.networks import EvaluationTransform, LoadedVersion, build, load_version, write_version

SIZE = 8
Probabilities = NDArray[np.float32]


def written(
    folder: Path, *, network: str = "resnet32", head: Literal["linear", "cosine"] = "linear", seed: int = 7
) -> LoadedVersion:
    """A version of three classes whose batch normalisation does something, with its executable; as torch loads it."""
    torch.manual_seed(seed)
    made = build(network, channels=3, image_size=SIZE, task_sizes=[3], head_kind=head)
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    transform = EvaluationTransform(SIZE, 3, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    folder.mkdir(exist_ok=True, parents=True)
    pixels = torch.from_numpy(some_pixels(3))
    write_executable(folder / "network.onnx", made.eval(), transform, pixels=pixels)
    write_version(folder, made, transform=transform, manifest={"tasks": [["a", "b", "c"]]})
    return load_version(folder)


def some_pixels(images: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """Random uint8 pixels."""
    return np.random.default_rng(seed).integers(0, 256, (images, 3, SIZE, SIZE), np.uint8)


def scaled(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The same pixels as values in 0 … 1."""
    return pixels.astype(np.float32) / np.float32(255)


def by_torch(version: LoadedVersion, pixels: NDArray[np.uint8]) -> Probabilities:
    """What the network itself answers."""
    found: Probabilities = version.probabilities_of(torch.from_numpy(pixels)).numpy()
    return found


# Devices


def test_devices_are_named_by_the_setting_and_shared_out():
    assert serving_devices("cpu, cpu") == [CPU, CPU]
    assert serving_devices("cuda,cuda:2") == [Device("cuda", 0), Device("cuda", 2)]
    four = [Device("cuda", n) for n in range(4)]
    assert [own_devices(four, worker, of=2) for worker in range(2)] == [four[0::2], four[1::2]]
    assert [own_devices(four[:2], worker, of=3) for worker in range(3)] == [four[:1], four[1:2], four[:1]]


@pytest.mark.parametrize("wanted", ["gpu", "cpu:1", "cuda:", "cuda:x", "cpu,,cpu", ""])
def test_a_device_of_another_name_is_refused(wanted):
    with pytest.raises(ValueError, match="ACCRETE_SERVING_DEVICES"):
        serving_devices(wanted)


# BatchingThreads


class Gate:
    """An execution that notes the minibatches it is given, and waits at a gate when it is told to."""

    def __init__(self, folder: Path) -> None:
        self.version = written(folder)
        self.open = threading.Event()
        self.open.set()
        self.sizes: list[int] = []
        self._session = Session(folder / "network.onnx", gpu=None, threads=1)

    def probabilities(self, images: Sequence[Images]) -> list[Probabilities]:
        self.sizes.append(sum(map(len, images)))
        assert self.open.wait(30)
        if all((one == 13).all() for one in images):
            raise RuntimeError("an image that breaks whatever computes it")
        return self._session.probabilities(images)


@pytest.fixture
def gate(tmp_path) -> Gate:
    """The execution of a version that answers at once, until it is closed."""
    return Gate(tmp_path)


@pytest.fixture
def batcher(gate) -> Batcher:
    """The queue before it."""
    return Batcher("a version", (gate,))


@pytest.fixture
def measures() -> Measures:
    """Instruments of this test."""
    return Measures(CollectorRegistry())


@pytest.fixture
def threads(measures) -> Iterator[BatchingThreads]:
    """One thread, a queue of 12 images, minibatches of 8."""
    started = BatchingThreads(1, capacity=12, minibatch=8, wait_seconds=0.05, measures=measures)
    yield started
    started.stop()


def request(batcher: Batcher, pixels: Images, *, seconds: float = 30) -> PendingRequest:
    """A request whose images are decoded."""
    loop = asyncio.get_running_loop()
    made = PendingRequest(batcher, len(pixels), time.monotonic() + seconds, loop.create_future(), loop)
    return replace(made, pixels=pixels)


async def asked(threads: BatchingThreads, batcher: Batcher, pixels: Images, *, seconds: float = 30) -> Probabilities:
    """Ask for some images, as the engine does."""
    threads.admit(batcher, len(pixels))
    made = request(batcher, pixels, seconds=seconds)
    threads.put(made)
    try:
        return await made.answer
    finally:
        threads.leave(made)


async def until(holds: Any) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


def test_what_waits_is_computed_together_and_each_gets_its_own(threads, batcher, gate):
    async def scene() -> None:
        gate.open.clear()
        first = asyncio.ensure_future(asked(threads, batcher, some_pixels(1, seed=0)))
        await until(lambda: gate.sizes == [1])
        others = [asyncio.ensure_future(asked(threads, batcher, some_pixels(n, seed=n))) for n in (1, 2, 3, 4)]
        await until(lambda: batcher.depth == 10)
        gate.open.set()
        found = await asyncio.gather(first, *others)
        expected = [by_torch(gate.version, some_pixels(max(n, 1), seed=n)) for n in range(5)]
        assert all(np.allclose(one, other, atol=1e-5) for one, other in zip(found, expected, strict=True))
        assert gate.sizes == [1, 6, 4]  # whole requests, in their order, as many as fit

    asyncio.run(scene())
    assert (batcher.admitted, batcher.decoding) == (0, 0)


def test_alone_a_request_does_not_wait_for_others(measures, batcher):
    slow = BatchingThreads(1, capacity=12, minibatch=8, wait_seconds=200, measures=measures)
    began = time.monotonic()
    asyncio.run(asked(slow, batcher, some_pixels(1)))
    assert time.monotonic() - began < 100
    slow.stop()


def test_images_that_are_being_decoded_are_waited_for_but_not_for_long(threads, measures, batcher, gate):
    patient = BatchingThreads(1, capacity=12, minibatch=8, wait_seconds=200, measures=measures)

    async def scene() -> None:
        patient.admit(batcher, 1)
        patient.admit(batcher, 1)
        pair = [request(batcher, some_pixels(1, seed=n)) for n in range(2)]
        patient.put(pair[0])
        await asyncio.sleep(0.005)
        assert gate.sizes == []
        patient.put(pair[1])
        await asyncio.gather(*(one.answer for one in pair))
        assert gate.sizes == [2]
        patient.stop()
        threads.admit(batcher, 1)  # and never comes
        await asked(threads, batcher, some_pixels(1))
        assert gate.sizes == [2, 1]

    asyncio.run(scene())


class Known(Costs):
    """Costs that were measured before, and that what a gate holds up does not change."""

    def __init__(self, fixed: float, each: float) -> None:
        super().__init__()
        for images in (1, 8, 1, 8):
            super().note(images, fixed + each * images)

    def note(self, images: int, seconds: float) -> None:
        """Do nothing."""


def test_nobody_waits_for_what_saves_nothing(measures, gate):
    patient = BatchingThreads(1, capacity=12, minibatch=8, wait_seconds=200, measures=measures)
    batcher = Batcher("a version", (gate,), Known(0.0, 1e-3))

    async def scene() -> None:
        patient.admit(batcher, 1)  # is being decoded, and never comes
        began = time.monotonic()
        await asked(patient, batcher, some_pixels(1))
        assert time.monotonic() - began < 100

    asyncio.run(scene())
    patient.stop()


def test_a_minibatch_is_as_large_as_its_costs_suggest(measures, gate):
    threads = BatchingThreads(1, capacity=64, minibatch=32, wait_seconds=0.05, measures=measures)
    batcher = Batcher("a version", (gate,), Known(0.96e-4, 1e-3))  # enough are 10 images, of 32 that may be

    async def scene() -> None:
        gate.open.clear()
        first = asyncio.ensure_future(asked(threads, batcher, some_pixels(1)))
        await until(lambda: gate.sizes == [1])
        others = [asyncio.ensure_future(asked(threads, batcher, some_pixels(1, seed=n))) for n in range(25)]
        await until(lambda: batcher.depth == 25)
        gate.open.set()
        await asyncio.gather(first, *others)
        assert gate.sizes == [1, 10, 10, 5]

    asyncio.run(scene())
    threads.stop()


def test_what_was_computed_counts(threads, batcher, gate):
    for images in (1, 6, 1, 6):
        asyncio.run(asked(threads, batcher, some_pixels(images)))
    known = batcher.costs._weight
    assert known > 3
    asyncio.run(asked(threads, batcher, some_pixels(12)))  # in two minibatches
    asyncio.run(_fails(threads, batcher))
    assert batcher.costs._weight == known


async def _fails(threads: BatchingThreads, batcher: Batcher) -> None:
    with pytest.raises(RuntimeError):
        await asked(threads, batcher, np.full((1, 3, SIZE, SIZE), 13, np.uint8))


def test_a_request_larger_than_a_minibatch_is_computed_in_several(threads, batcher, gate):
    found = asyncio.run(asked(threads, batcher, some_pixels(20)))
    assert np.allclose(found, by_torch(gate.version, some_pixels(20)), atol=1e-5)
    assert gate.sizes == [8, 8, 4]


def test_pixels_and_normalised_values_share_a_minibatch(threads, batcher, gate):
    async def scene() -> None:
        gate.open.clear()
        first = asyncio.ensure_future(asked(threads, batcher, some_pixels(1)))
        await until(lambda: gate.sizes == [1])
        pair: list[Images] = [some_pixels(2, seed=5), scaled(some_pixels(2, seed=6))]
        waiting = [asyncio.ensure_future(asked(threads, batcher, one)) for one in pair]
        await until(lambda: batcher.depth == 4)
        gate.open.set()
        await first
        for found, seed in zip(await asyncio.gather(*waiting), (5, 6), strict=True):
            assert np.allclose(found, by_torch(gate.version, some_pixels(2, seed=seed)), atol=1e-5)
        assert gate.sizes == [1, 4]

    asyncio.run(scene())


def test_a_full_queue_says_when_to_come_again(threads, batcher, gate, measures):
    async def scene() -> None:
        gate.open.clear()
        waiting = [asyncio.ensure_future(asked(threads, batcher, some_pixels(4))) for _ in range(3)]
        await until(lambda: gate.sizes)
        with pytest.raises(Overloaded, match="12 images wait for a version already, of 12") as refused:
            threads.admit(batcher, 1)
        assert refused.value.extra["retry_after"] >= 1
        gate.open.set()
        await asyncio.gather(*waiting)
        await asked(threads, batcher, some_pixels(12))

    asyncio.run(scene())
    assert measures.refused._value.get() == 1
    assert measures.queue_images._value.get() == 0


def test_a_request_past_its_deadline_is_not_computed(threads, batcher, gate):
    async def scene() -> None:
        gate.open.clear()
        first = asyncio.ensure_future(asked(threads, batcher, some_pixels(1)))
        await until(lambda: gate.sizes == [1])
        late = asyncio.ensure_future(asked(threads, batcher, some_pixels(2), seconds=0.01))
        mate = asyncio.ensure_future(asked(threads, batcher, some_pixels(3)))
        await asyncio.sleep(0.05)
        gate.open.set()
        await asyncio.gather(first, mate)
        with pytest.raises(DeadlineExceeded):
            await late
        assert gate.sizes == [1, 3]

    asyncio.run(scene())


def test_a_cancelled_request_does_not_disturb_its_mates(threads, batcher, gate):
    async def scene() -> None:
        gate.open.clear()
        first = asyncio.ensure_future(asked(threads, batcher, some_pixels(1)))
        await until(lambda: gate.sizes == [1])
        given_up = asyncio.ensure_future(asked(threads, batcher, some_pixels(2)))
        mate = asyncio.ensure_future(asked(threads, batcher, some_pixels(3)))
        await until(lambda: batcher.depth == 5)
        given_up.cancel()
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(first, mate)
        assert gate.sizes == [1, 3]

    asyncio.run(scene())
    assert batcher.admitted == 0


def test_a_request_that_fails_does_not_disturb_its_mates(threads, batcher, gate, monkeypatch):
    async def scene() -> None:
        gate.open.clear()
        first = asyncio.ensure_future(asked(threads, batcher, some_pixels(1)))
        await until(lambda: gate.sizes == [1])
        broken = np.full((1, 3, SIZE, SIZE), 13, np.uint8)
        gate_probabilities: Any = gate.probabilities

        def strict(images: Sequence[Images]) -> list[Probabilities]:
            if any((one == 13).all() for one in images):
                raise RuntimeError("one of these cannot be computed")
            found: list[Probabilities] = gate_probabilities(images)
            return found

        monkeypatch.setattr(gate, "probabilities", strict)
        waiting = [
            asyncio.ensure_future(asked(threads, batcher, one)) for one in (some_pixels(1), broken, some_pixels(2))
        ]
        await until(lambda: batcher.depth == 4)
        gate.open.set()
        outcomes = await asyncio.gather(first, *waiting, return_exceptions=True)
        assert [type(one) for one in outcomes] == [np.ndarray, np.ndarray, RuntimeError, np.ndarray]

    asyncio.run(scene())


def test_the_version_that_waits_longest_is_computed_first_on_every_thread(tmp_path, measures):
    gates = [Gate(tmp_path) for _ in range(2)]
    threads = BatchingThreads(2, capacity=12, minibatch=8, wait_seconds=0, measures=measures)
    batchers = [Batcher(f"version {n}", (gate, gate)) for n, gate in enumerate(gates)]

    async def scene() -> None:
        for gate in gates:
            gate.open.clear()
        held = [asyncio.ensure_future(asked(threads, batchers[0], some_pixels(1))) for _ in range(2)]
        await until(lambda: sum(gates[0].sizes) == 2)
        other = asyncio.ensure_future(asked(threads, batchers[1], some_pixels(1)))
        later = asyncio.ensure_future(asked(threads, batchers[0], some_pixels(3)))
        await until(lambda: batchers[0].depth == 3)
        gates[0].open.set()
        await until(lambda: gates[1].sizes == [1])
        gates[1].open.set()
        await asyncio.gather(*held, other, later)

    asyncio.run(scene())
    threads.stop()


def test_a_version_that_nobody_holds_any_more_is_let_go(threads, tmp_path):
    gate = Gate(tmp_path)
    batcher = Batcher("an old version", (gate,))
    asyncio.run(asked(threads, batcher, some_pixels(1)))
    gone = weakref.ref(gate)
    del gate, batcher
    gc.collect()
    assert eventually(lambda: gone() is None)  # the thread lets go of it once it has looked for the next


def test_the_time_an_image_takes_is_learned_and_told_to_who_has_to_come_again(measures, batcher, gate, monkeypatch):
    threads = BatchingThreads(1, capacity=1000, minibatch=8, wait_seconds=0, measures=measures)
    probabilities = gate.probabilities

    def slowly(images: Sequence[Images]) -> list[Probabilities]:
        time.sleep(0.05 * sum(map(len, images)))
        found: list[Probabilities] = probabilities(images)
        return found

    monkeypatch.setattr(gate, "probabilities", slowly)

    def told() -> int:
        full = Batcher("a version whose queue is full", (gate,))
        threads.admit(full, 1000)
        with pytest.raises(Overloaded) as refused:
            threads.admit(full, 1)
        return int(refused.value.extra["retry_after"])

    assert told() == 10  # 1000 images at a hundredth of a second, as is supposed at first
    for _ in range(20):
        asyncio.run(asked(threads, batcher, some_pixels(1)))
    threads.stop()
    assert told() > 40
