"""Devices: which names stand for, and how runs and processors are divided among them."""

import os

import pytest

from storage.errors import Invalid
from trainer.experiments.runs.devices import Machine, present, shared

PROCESSORS = len(os.sched_getaffinity(0))
TWO = ("cuda:0", "cuda:1")


def test_every_device_has_a_run_unless_another_number_is_given():
    assert [shared(devices, jobs=None, threads=1).jobs for devices in (("cpu",), TWO)] == [1, 2]
    assert [shared(TWO, jobs=jobs, threads=1).jobs for jobs in (1, 6)] == [1, 6]


def test_runs_share_the_processors_unless_a_number_is_given():
    assert shared(("cpu",), jobs=None, threads=None) == Machine(("cpu",), 1, PROCESSORS)
    assert shared(TWO, jobs=None, threads=None).threads == max(1, PROCESSORS // 2)
    assert shared(TWO, jobs=10 * PROCESSORS, threads=None).threads == 1
    assert shared(TWO, jobs=10, threads=7).threads == 7


def test_a_device_that_two_names_stand_for_is_one():
    assert present(["cpu", "cpu"]) == ("cpu",)
    with pytest.raises(Invalid, match="--devices cuda:99, tpu: here are auto, cpu"):
        present(["cpu", "cuda:99", "tpu"])
