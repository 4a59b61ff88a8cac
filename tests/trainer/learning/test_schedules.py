"""Schedules: the rate of every step, and where the plateau rule lets a network begin again, and end."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from trainer.learning.schedules import VALIDATED, Schedule, learning_rate_factor, schedule_for

KINDS = ("constant", "cosine", "one-cycle", "plateau")


def test_a_constant_rate_stays_after_its_rise():
    factor = learning_rate_factor("constant", warmup=4, total=20)
    assert [factor(step) for step in range(20)] == [0.25, 0.5, 0.75, *[1.0] * 17]


def test_a_cosine_falls_along_half_a_cosine_after_its_rise():
    factor = learning_rate_factor("cosine", warmup=2, total=10)
    factors = [factor(step) for step in range(11)]
    assert factors[:3] == [0.5, 1.0, 1.0]
    assert factors[4] == pytest.approx((1 + math.sqrt(0.5)) / 2)  # a quarter of the way down
    assert factors[6] == pytest.approx(0.5)
    assert factors[8] == pytest.approx((1 - math.sqrt(0.5)) / 2)
    assert factors[10] == pytest.approx(0)


def test_without_a_rise_the_first_step_has_the_whole_rate():
    assert learning_rate_factor("cosine", warmup=0, total=5)(0) == 1
    assert learning_rate_factor("constant", warmup=0.4, total=5)(0) == 1


@pytest.mark.parametrize("kind", ["constant", "cosine"])
def test_the_rise_takes_half_of_the_steps_at_most(kind):
    factor = learning_rate_factor(kind, warmup=1000, total=10)
    assert [factor(step) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])


@pytest.mark.parametrize("total", [1, 2, 3])
def test_the_shortest_trainings_learn_at_every_step(total):
    factor = learning_rate_factor("cosine", warmup=100, total=total)
    assert all(0 < factor(step) <= 1 for step in range(total))


class Course:
    """A network of one weight and some batch statistics, its optimiser, and a schedule over both."""

    def __init__(self, kind: str, *, rate: float = 0.1, momentum: float = 0.0, **changed: Any) -> None:
        self.network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
        self.optimiser = torch.optim.SGD(self.network.parameters(), lr=rate, momentum=momentum)
        values: dict[str, Any] = {"epochs": 3, "steps_per_epoch": 2, "warmup_epochs": 0.0}
        values |= {"patience": 5, "rate_divisor": 3.0, "lowest_rate": 1e-4} | changed
        self.schedule: Schedule = schedule_for(kind, self.optimiser, self.network, **values)

    @property
    def weight(self) -> Tensor:
        return self.network.get_parameter("0.weight")

    @property
    def rate(self) -> float:
        return float(self.optimiser.param_groups[0]["lr"])

    def step(self, gradient: float = 0.0) -> tuple[float, float]:
        """One step down a given slope; the rate and the momentum it was taken with."""
        (group,) = self.optimiser.param_groups
        taken = float(group["lr"]), float(group["momentum"])
        self.weight.grad = torch.tensor([[gradient]])
        self.optimiser.step()
        self.schedule.step()
        return taken

    def epoch(self, loss: float | None, *, weight: float = 0.0) -> bool:
        """One epoch that ends with this weight and this validation loss."""
        with torch.no_grad():
            self.weight.fill_(weight)
        return self.schedule.epoch(loss)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("constant", [0.02, 0.04, 0.04, 0.04, 0.04, 0.04]),
        ("cosine", [0.02, 0.04, 0.04, 0.02 + 0.02 * math.sqrt(0.5), 0.02, 0.02 - 0.02 * math.sqrt(0.5)]),
        ("plateau", [0.02, 0.04, 0.04, 0.04, 0.04, 0.04]),
    ],
)
def test_the_rate_moves_at_every_step_and_momentum_stays(kind, expected):
    course = Course(kind, rate=0.04, momentum=0.8, warmup_epochs=1.0)
    taken = [course.step() for _ in range(6)]
    assert [rate for rate, _ in taken] == pytest.approx(expected)
    assert {momentum for _, momentum in taken} == {0.8}


def test_one_cycle_moves_the_rate_up_and_down_and_momentum_against_it():
    course = Course("one-cycle", rate=0.05, momentum=0.9, epochs=19, steps_per_epoch=1)
    rates, momenta = zip(*(course.step() for _ in range(19)), strict=True)
    peak = rates.index(max(rates))
    assert rates[0] == pytest.approx(0.05 / 25)
    assert rates[peak] == pytest.approx(0.05)
    assert 0 < peak < 9  # the rise is the shorter part
    assert list(rates) == sorted(rates[: peak + 1]) + sorted(rates[peak + 1 :], reverse=True)
    assert rates[-1] < 0.002
    # Momentum turns where the rate does: 0.9 at both ends and 0.8 between.
    assert (momenta[0], momenta[peak]) == pytest.approx((0.9, 0.8))
    assert momenta[-1] == pytest.approx(0.9, abs=0.005)
    assert list(momenta) == sorted(momenta[: peak + 1], reverse=True) + sorted(momenta[peak + 1 :])


@pytest.mark.parametrize("momentum", [0.0, 0.05])
def test_one_cycle_never_brings_momentum_below_none(momentum):
    course = Course("one-cycle", momentum=momentum, epochs=9, steps_per_epoch=1)
    taken = [course.step() for _ in range(9)]
    assert min(value for _, value in taken) == pytest.approx(0, abs=1e-9)
    assert max(value for _, value in taken) <= momentum


@pytest.mark.parametrize("kind", KINDS)
def test_each_group_of_parameters_has_its_own_rate_and_all_move_together(kind):
    layers = nn.Linear(1, 1), nn.Linear(1, 1)
    groups = [{"params": layer.parameters(), "lr": rate} for layer, rate in zip(layers, (0.1, 0.02), strict=True)]
    optimiser = torch.optim.SGD(groups, momentum=0.9)
    schedule = schedule_for(
        kind,
        optimiser,
        nn.Sequential(*layers),
        epochs=4,
        steps_per_epoch=2,
        warmup_epochs=1.0,
        patience=1,
        rate_divisor=2.0,
        lowest_rate=1e-4,
    )
    seen = []
    for step in range(8):
        seen.append([float(group["lr"]) for group in optimiser.param_groups])
        optimiser.step()
        schedule.step()
        if step % 2:
            schedule.epoch(1.0)
    assert max(seen) == pytest.approx([0.1, 0.02], rel=0.05)
    assert min(seen) < max(seen)
    assert all(first == pytest.approx(5 * second) for first, second in seen)


def test_the_planned_schedules_heed_no_loss_and_keep_the_last_weights():
    for kind in sorted({*KINDS} - VALIDATED):
        course = Course(kind)
        rates = []
        for loss in (1.0, 2.0, 3.0):
            rates += [course.step()[0] for _ in range(2)]
            assert course.epoch(loss, weight=loss) is False
        course.schedule.finish()
        assert course.weight.item() == 3
        undisturbed = Course(kind)
        assert rates == [undisturbed.step()[0] for _ in range(6)]


def test_a_schedule_that_is_not_known_is_refused_by_name():
    with pytest.raises(ValueError, match=r"'stepwise'.*plateau"):
        Course("stepwise")


def test_the_published_values_end_a_training_that_never_improves_after_thirty_six_epochs():
    # 0.1 / 3⁶ is 1.4e-4, 0.1 / 3⁷ is below 1e-4: seven times five epochs after the first.
    course = Course("plateau")
    rates = []
    for epoch in range(1, 37):
        rates.append(course.rate)
        assert course.epoch(1.0, weight=epoch) is (epoch == 36)
    assert rates == pytest.approx([0.1] + [0.1 / 3 ** (epoch // 5) for epoch in range(35)])
    assert course.weight.item() == 1


def test_after_the_patience_is_lost_the_best_weights_come_back_and_the_rate_is_divided():
    course = Course("plateau", patience=2, rate_divisor=4.0)
    losses_and_after = [
        (3.0, 1, 0.1),
        (2.0, 2, 0.1),  # the best
        (2.5, 3, 0.1),
        (2.0, 2, 0.025),  # equal is no improvement; the second without one
        (2.2, 5, 0.025),
        (1.9, 6, 0.025),  # better again: patience is whole
        (2.0, 7, 0.025),
        (2.0, 6, 0.00625),
    ]
    for epoch, (loss, weight, rate) in enumerate(losses_and_after, start=1):
        assert course.epoch(loss, weight=epoch) is False
        assert (course.weight.item(), course.rate) == pytest.approx((weight, rate))


def published(losses: Sequence[float | None], *, patience: int) -> tuple[int, int, float]:
    """Epochs until the end, the epoch whose weights are left, and the last rate, from the rule in words."""
    rate, best, since, left = 0.1, math.inf, 0, 0
    best_epoch = 0
    for epoch, loss in enumerate(losses, start=1):
        left = epoch
        if loss is None:
            continue
        if not math.isnan(loss) and loss < best:
            best, best_epoch, since = loss, epoch, 0
        else:
            since += 1
        if since == patience:
            rate, since = rate / 10, 0
        if rate < 0.5e-2:
            return epoch, best_epoch or left, rate
    return len(losses), best_epoch or left, rate


some_losses = st.lists(st.sampled_from([None, math.nan, math.inf, 0.5, 1.0, 1.5, 2.0]), min_size=1, max_size=14)


@settings(deadline=None)  # the first optimiser of a process takes a second
@given(losses=some_losses, patience=st.integers(1, 3))
def test_plateau_is_the_rule_in_words_for_any_losses(losses, patience):
    course = Course("plateau", patience=patience, rate_divisor=10.0, lowest_rate=0.5e-2)
    epochs = 0
    for epochs, loss in enumerate(losses, start=1):
        if course.epoch(loss, weight=epochs):
            break
    course.schedule.finish()
    assert (epochs, course.weight.item(), course.rate) == pytest.approx(published(losses, patience=patience))


def test_statistics_come_back_with_the_weights():
    course = Course("plateau")
    normalisation = course.network[1]
    assert isinstance(normalisation, nn.BatchNorm1d)
    normalisation(torch.tensor([[3.0], [5.0]]))
    course.epoch(1.0)
    best = {name: tensor.clone() for name, tensor in course.network.state_dict().items()}
    normalisation(torch.tensor([[30.0], [70.0]]))
    course.epoch(2.0, weight=9.0)
    assert not torch.equal(course.network.state_dict()["1.running_mean"], best["1.running_mean"])
    course.schedule.finish()
    for name, tensor in course.network.state_dict().items():
        assert torch.equal(tensor, best[name])


def test_weights_come_back_into_the_same_tensors_which_still_learn():
    course = Course("plateau", patience=1)
    weight = course.weight
    course.epoch(1.0, weight=4.0)
    course.epoch(2.0, weight=5.0)
    assert course.weight is weight
    assert weight.item() == 4
    course.step(gradient=1.0)
    assert weight.item() == pytest.approx(4 - 0.1 / 3)


def test_momentum_starts_afresh_from_the_best_weights():
    course = Course("plateau", patience=1, momentum=0.9)
    course.epoch(1.0)
    for _ in range(3):
        course.step(gradient=100.0)
    course.epoch(2.0)
    before = course.weight.item()
    course.step(gradient=1.0)
    assert course.weight.item() == pytest.approx(before - 0.1 / 3)


def test_the_rise_goes_on_from_step_to_step_over_a_divided_rate():
    course = Course("plateau", rate=0.12, patience=1, warmup_epochs=1.5, steps_per_epoch=4, epochs=4)
    rates = [course.step()[0] for _ in range(4)]
    course.epoch(1.0)
    rates += [course.step()[0] for _ in range(4)]
    course.epoch(2.0)
    rates += [course.step()[0] for _ in range(2)]
    assert rates == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.12, 0.12, 0.04, 0.04])
    early = Course("plateau", rate=0.12, patience=1, warmup_epochs=1.0, steps_per_epoch=4, epochs=4)
    early.step()
    early.epoch(1.0)
    early.epoch(1.0)
    assert early.rate == pytest.approx(0.12 / 3 / 2)


def test_learning_ends_below_the_lowest_rate_and_not_at_it():
    course = Course("plateau", rate=0.5, patience=1, rate_divisor=2.0, lowest_rate=0.125)
    assert [course.epoch(1.0) for _ in range(4)] == [False, False, False, True]


@pytest.mark.parametrize("kind", KINDS)
def test_one_loop_learns_with_every_kind(kind):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(64, 3, generator=generator)
    outputs = inputs @ torch.tensor([[1.0], [-2.0], [0.5]])
    network = nn.Linear(3, 1)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.5)
    schedule = schedule_for(
        kind,
        optimiser,
        network,
        epochs=30,
        steps_per_epoch=4,
        warmup_epochs=1.0,
        patience=2,
        rate_divisor=3.0,
        lowest_rate=1e-3,
    )
    for _ in range(30):
        for part in range(4):
            loss = nn.functional.mse_loss(network(inputs[part::4]), outputs[part::4])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        with torch.no_grad():
            validation = float(nn.functional.mse_loss(network(inputs), outputs))
        if schedule.epoch(validation):
            break
    schedule.finish()
    assert float(nn.functional.mse_loss(network(inputs), outputs).detach()) < 0.01
