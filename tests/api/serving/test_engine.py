"""The engine by itself: minibatches, their mates, a full queue, a deadline, and the choice of execution."""

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import psutil
import pytest
import torch
from prometheus_client import CollectorRegistry
from torch import Tensor

from api.measures import Measures
from api.serving.engine import own_devices, serving_devices
from api.serving.execution import plans
from api.serving.execution.frozen import blueprint, frozen
from api.serving.execution.libraries import Source
from api.serving.execution.plans import EAGER, FROZEN, SIZES, Make, Plan, Planner, Step
from api.serving.minibatches import Batcher, BatchingThreads, PendingRequest
from storage.errors import DeadlineExceeded, Overloaded
from tests.api.worlds import eventually
from trainer.networks import EvaluationTransform, LoadedVersion, build, load_version, write_version

SIZE, CPU = 8, torch.device("cpu")
MAKE = Make(CPU, Source("resnet32", 3, SIZE, "linear"))


def loaded(
    folder: Path, *, network: str = "resnet32", head: Literal["linear", "cosine"] = "linear", seed: int = 7
) -> LoadedVersion:
    """A version of three classes whose batch normalisation does something."""
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
    write_version(folder, made, transform=transform, manifest={"tasks": [["a", "b", "c"]]})
    return load_version(folder)


def some_pixels(images: int, *, seed: int = 0) -> Tensor:
    """Random uint8 pixels."""
    return torch.randint(0, 256, (images, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(seed)).byte()


# Executions


@pytest.mark.parametrize("network", ["resnet32", "resnet18"])
@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_whatever_is_chosen_answers_as_the_network_itself(tmp_path, network, head):
    version = loaded(tmp_path, network=network, head=head)
    expected = {n: version.probabilities_of(some_pixels(n)) for n in (1, 2, 4, 5, 16, 40)}
    plan = Planner(2).plan(version, CPU)
    assert set(plan.chosen) == set(SIZES)
    assert set(plan.chosen.values()) <= {(EAGER, 1), (EAGER, 2), (FROZEN, 1), (FROZEN, 2)}
    for n, probabilities in expected.items():
        assert torch.allclose(plan.probabilities(some_pixels(n)), probabilities, atol=1e-4)
        as_floats = some_pixels(n).float() / 255
        assert torch.allclose(plan.probabilities(as_floats), probabilities, atol=1e-4)


@pytest.mark.parametrize("network", ["resnet32", "resnet18", "mobilenet_v2"])
def test_a_frozen_network_answers_as_the_network_whose_weights_it_was_given(tmp_path, network):
    first, second = (loaded(tmp_path / str(n), network=network, seed=n).network for n in range(2))
    trace = blueprint(first, torch.rand(1, 3, SIZE, SIZE))
    assert trace is not None
    assert len(trace) < 1_000_000  # the weights are not in it
    with torch.inference_mode():
        for images in (torch.rand(5, 3, SIZE, SIZE), torch.rand(1, 3, SIZE, SIZE)):
            assert not torch.allclose(first(images), second(images), atol=1e-2)
            for each in (first, second):
                assert torch.allclose(frozen(each, trace)(images), each(images), atol=1e-4)


def test_frozen_networks_leave_nothing_behind(tmp_path):
    version = loaded(tmp_path, network="resnet18")
    trace = blueprint(version.network, torch.rand(1, 3, SIZE, SIZE))
    assert trace is not None

    def resident() -> int:
        gc.collect()
        return int(psutil.Process().memory_full_info().uss)

    before = 0
    for number in range(13):
        with torch.inference_mode():
            frozen(version.network, trace)(torch.rand(2, 3, SIZE, SIZE))
        if number == 2:
            before = resident()
    # Ten copies of the weights were made since, 45 MB each: a third of them is more than an allocator keeps aside.
    assert resident() - before < 3 * 45 << 20


def test_an_execution_that_answers_otherwise_is_dropped(tmp_path, monkeypatch):
    version = loaded(tmp_path)
    network = version.network
    monkeypatch.setattr(plans, "frozen", lambda *_, **__: lambda images: network(images) + 0.01)
    plan = Planner(1).plan(version, CPU)
    assert set(plan.chosen.values()) == {(EAGER, 1)}


def test_what_cannot_be_traced_is_served_as_it_is(tmp_path, monkeypatch):
    version = loaded(tmp_path)

    def untraceable(*_: object, **__: object) -> object:
        raise RuntimeError("no graph")

    monkeypatch.setattr(torch.jit, "trace", untraceable)
    assert set(Planner(1).plan(version, CPU).chosen.values()) == {(EAGER, 1)}


def test_the_next_version_of_the_same_make_is_not_measured_again(tmp_path, monkeypatch):
    planner = Planner(1)
    first = planner.plan(loaded(tmp_path / "1"), CPU)
    monkeypatch.setattr(plans, "_fastest", lambda *_: pytest.fail("measured again"))
    assert planner.plan(loaded(tmp_path / "2"), CPU).chosen == first.chosen


def test_a_plan_goes_by_the_size_of_the_minibatch(tmp_path):
    version = loaded(tmp_path)
    steps = tuple(Step(least, name, 1, version.network) for least, name in ((1, "one"), (4, "four"), (16, "many")))
    plan = Plan(version, MAKE, steps)
    chosen = {n: plan.step(n).name for n in (1, 3, 4, 15, 16, 500)}
    assert chosen == {1: "one", 3: "one", 4: "four", 15: "four", 16: "many", 500: "many"}


@pytest.mark.parametrize(("threads", "tried"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_as_many_threads_are_tried_as_there_may_be(threads, tried):
    assert Planner(threads)._counts(CPU) == tried
    assert Planner(threads)._counts(torch.device("cuda")) == [1]


def test_devices_are_named_by_the_setting_and_shared_out():
    assert serving_devices("cpu, cpu") == [CPU, CPU]
    auto = serving_devices("auto")
    assert auto == ([torch.device("cuda", n) for n in range(torch.cuda.device_count())] or [CPU])
    four = [torch.device("cuda", n) for n in range(4)]
    assert [own_devices(four, worker, of=2) for worker in range(2)] == [four[0::2], four[1::2]]
    assert [own_devices(four[:2], worker, of=3) for worker in range(3)] == [four[:1], four[1:2], four[:1]]


# BatchingThreads


class Gate(Plan):
    """A plan that notes the minibatches it is given, and waits at a gate when it is told to."""

    def __init__(self, version: LoadedVersion) -> None:
        super().__init__(version, MAKE, (Step(1, EAGER, 1, version.network),))
        object.__setattr__(self, "open", threading.Event())
        object.__setattr__(self, "sizes", [])
        self.open.set()

    open: threading.Event
    sizes: list[int]

    def probabilities(self, pixels: Tensor) -> Tensor:
        self.sizes.append(len(pixels))
        assert self.open.wait(30)
        if bool((pixels == 13).all()):
            raise RuntimeError("an image that breaks whatever computes it")
        return super().probabilities(pixels)


@pytest.fixture
def gate(tmp_path) -> Gate:
    """A plan of a version that answers at once, until it is closed."""
    return Gate(loaded(tmp_path))


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


def request(batcher: Batcher, pixels: Tensor, *, seconds: float = 30) -> PendingRequest:
    """A request whose images are decoded."""
    loop = asyncio.get_running_loop()
    made = PendingRequest(batcher, len(pixels), time.monotonic() + seconds, loop.create_future(), loop)
    return replace(made, pixels=pixels)


async def asked(threads: BatchingThreads, batcher: Batcher, pixels: Tensor, *, seconds: float = 30) -> Tensor:
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
        expected = [gate.version.probabilities_of(some_pixels(max(n, 1), seed=n)) for n in range(5)]
        assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(found, expected, strict=True))
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


def test_a_request_larger_than_a_minibatch_is_computed_in_several(threads, batcher, gate):
    found = asyncio.run(asked(threads, batcher, some_pixels(20)))
    assert torch.allclose(found, gate.version.probabilities_of(some_pixels(20)), atol=1e-5)
    assert gate.sizes == [8, 8, 4]


def test_pixels_and_normalised_values_share_a_minibatch(threads, batcher, gate):
    async def scene() -> None:
        gate.open.clear()
        first = asyncio.ensure_future(asked(threads, batcher, some_pixels(1)))
        await until(lambda: gate.sizes == [1])
        pair = [some_pixels(2, seed=5), some_pixels(2, seed=6).float() / 255]
        waiting = [asyncio.ensure_future(asked(threads, batcher, one)) for one in pair]
        await until(lambda: batcher.depth == 4)
        gate.open.set()
        await first
        for found, seed in zip(await asyncio.gather(*waiting), (5, 6), strict=True):
            assert torch.allclose(found, gate.version.probabilities_of(some_pixels(2, seed=seed)), atol=1e-5)
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


def test_a_request_that_fails_does_not_disturb_its_mates(threads, batcher, gate):
    async def scene() -> None:
        gate.open.clear()
        first = asyncio.ensure_future(asked(threads, batcher, some_pixels(1)))
        await until(lambda: gate.sizes == [1])
        broken = torch.full((1, 3, SIZE, SIZE), 13, dtype=torch.uint8)
        gate_probabilities = gate.probabilities

        def strict(pixels: Tensor) -> Tensor:
            if bool((pixels == 13).flatten(1).all(dim=1).any()):
                raise RuntimeError("one of these cannot be computed")
            found: Tensor = gate_probabilities(pixels)
            return found

        object.__setattr__(gate, "probabilities", strict)
        waiting = [
            asyncio.ensure_future(asked(threads, batcher, one)) for one in (some_pixels(1), broken, some_pixels(2))
        ]
        await until(lambda: batcher.depth == 4)
        gate.open.set()
        outcomes = await asyncio.gather(first, *waiting, return_exceptions=True)
        assert [type(one) for one in outcomes] == [Tensor, Tensor, RuntimeError, Tensor]

    asyncio.run(scene())


def test_the_version_that_waits_longest_is_computed_first_on_every_thread(tmp_path, measures):
    gates = [Gate(loaded(tmp_path)) for _ in range(2)]
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
    gate = Gate(loaded(tmp_path))
    batcher = Batcher("an old version", (gate,))
    asyncio.run(asked(threads, batcher, some_pixels(1)))
    gone = weakref.ref(gate)
    del gate, batcher
    gc.collect()
    assert eventually(lambda: gone() is None)  # the lane lets go of it once it has looked for the next


def test_the_time_an_image_takes_is_learned_and_told_to_who_has_to_come_again(measures, batcher, gate):
    threads = BatchingThreads(1, capacity=1000, minibatch=8, wait_seconds=0, measures=measures)
    probabilities = gate.probabilities

    def slowly(pixels: Tensor) -> Tensor:
        time.sleep(0.05 * len(pixels))
        found: Tensor = probabilities(pixels)
        return found

    object.__setattr__(gate, "probabilities", slowly)

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
