"""Metrics against values worked out by hand, and against scikit-learn."""

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as sklearn_metrics

from storage.history.curves import curves
from trainer.evaluation.metrics import document, expected_calibration_error, forgetting_by_task, measure


def logits_for(predicted: list[int], classes: int) -> NDArray[np.float64]:
    """Logits whose argmax over all classes is as given."""
    return 4.0 * np.eye(classes)[predicted]


def history(*steps: tuple[NDArray[Any], list[int], tuple[int, ...]]) -> list[dict[str, Any]]:
    """The documents of a line of versions."""
    documents: list[dict[str, Any]] = []
    for logits, targets, task_sizes in steps:
        classes = sum(task_sizes)
        measurement = measure(
            logits=logits,
            targets=np.array(targets),
            task_sizes=task_sizes,
            weight_norms=[1.0] * classes,
            biases=[0.0] * classes,
        )
        documents.append(document(documents, measurement, [f"c{index}" for index in range(classes)]))
    return documents


# Three tasks: classes 0 1, class 2, classes 3 4. Four images of task 0, two of task 1, two of task 2.
T0 = (logits_for([0, 0, 1, 1], 2), [0, 0, 1, 1], (2,))  # a[0,0] = 1
T1 = (logits_for([0, 2, 1, 2, 2, 2], 3), [0, 0, 1, 1, 2, 2], (2, 1))  # a[1] = ½, 1
T2 = (logits_for([0, 0, 1, 4, 2, 3, 3, 3], 5), [0, 0, 1, 1, 2, 2, 3, 4], (2, 1, 2))  # a[2] = ¾, ½, ½


def test_task_agnostic_metrics_worked_out_by_hand():
    first, second, third = (entry["tag"] for entry in history(T0, T1, T2))
    assert [step["accuracy"] for step in (first, second, third)] == [[1.0], [0.5, 1.0], [0.75, 0.5, 0.5]]
    assert third["average_accuracy"] == pytest.approx(1.75 / 3)
    assert third["micro_accuracy"] == pytest.approx(5 / 8)
    assert third["average_incremental_accuracy"] == pytest.approx((1 + 0.75 + 1.75 / 3) / 3)
    assert third["forgetting_by_task"] == pytest.approx([0.25, 0.5])
    assert third["forgetting"] == pytest.approx(0.375)
    assert third["backward_transfer"] == pytest.approx((-0.25 - 0.5) / 2)
    assert third["triangle_accuracy"] == pytest.approx((1 + 0.5 + 1 + 0.75 + 0.5 + 0.5) / 6)
    assert third["triangle_forgetting"] == pytest.approx((0.5 + 0.25 + 0.5) / 3)
    assert second["forgetting"] == pytest.approx(0.5)
    assert second["triangle_forgetting"] == pytest.approx(0.5)


def test_at_first_nothing_can_have_been_forgotten():
    (first,) = history(T0)
    for form in ("tag", "taw"):
        part = first[form]
        assert part["average_accuracy"] == part["average_incremental_accuracy"] == part["triangle_accuracy"] == 1.0
        assert part["forgetting"] is part["backward_transfer"] is part["triangle_forgetting"] is None
        assert part["forgetting_by_task"] == []
    assert first["imbalance"] is None
    assert first["test_images"] == [4]


def test_task_aware_accuracy_looks_only_within_the_true_task():
    # Class 4 gets every image of task 0, but among classes 0 and 1 the right one is ahead of the other.
    logits = np.array([[1.0, 0, 0, 0, 9], [0, 1, 0, 0, 9], [0, 0, -5, 0, 9], [0, 0, 9, 2, 1]])
    targets = [0, 1, 2, 4]
    found = measure(logits=logits, targets=np.array(targets), task_sizes=(2, 1, 2))
    assert found.tag.accuracy == [0.0, 0.0, 0.0]
    assert found.taw.accuracy == [1.0, 1.0, 0.0]  # a task of one class is right by definition
    assert found.taw.confusion[4, 3] == 1
    assert found.tag.confusion[4, 2] == 1


def test_forgetting_is_from_the_best_earlier_version_and_may_be_negative():
    assert forgetting_by_task([[0.2], [0.9, 0.4], [0.5, 0.6, 1.0]]) == pytest.approx([0.4, -0.2])


KNOWN = (logits_for([0, 0, 0, 1, 2, 0], 3), [0, 0, 1, 1, 2, 2], (2, 1))  # no new class: a = ¾, ½


def test_a_version_without_a_new_task_has_a_row_as_long_and_only_old_tasks():
    documents = history(T0, T1, KNOWN, T2)
    _, second, third, fourth = (entry["tag"] for entry in documents)
    assert third["accuracy"] == [0.75, 0.5]
    assert third["forgetting_by_task"] == pytest.approx([1 - 0.75, 1 - 0.5])
    assert third["forgetting"] == pytest.approx(0.375)
    assert third["backward_transfer"] == pytest.approx((-0.25 - 0.5) / 2)
    assert third["average_incremental_accuracy"] == pytest.approx((1 + 0.75 + 0.625) / 3)
    assert third["triangle_accuracy"] == pytest.approx((1 + 0.5 + 1 + 0.75 + 0.5) / 5)
    assert third["triangle_forgetting"] == pytest.approx((0.5 + 0.25 + 0.5) / 3)
    # After it a new one comes: each task's first figure is of the version that brought it.
    assert fourth["accuracy"] == [0.75, 0.5, 0.5]
    assert fourth["forgetting_by_task"] == pytest.approx([0.25, 0.5])
    assert fourth["backward_transfer"] == pytest.approx((-0.25 - 0.5) / 2)
    assert fourth["triangle_forgetting"] == pytest.approx((0.5 + 0.25 + 0.5 + 0.25 + 0.5) / 5)
    drawn = curves(documents)["tag"]
    assert [len(row) for row in drawn["matrix"]] == [1, 2, 2, 3]
    assert drawn["forgetting"] == [None, second["forgetting"], third["forgetting"], fourth["forgetting"]]


def test_a_single_task_can_be_forgotten_by_a_version_that_brings_none():
    worse = (logits_for([0, 1, 1, 1], 2), [0, 0, 1, 1], (2,))
    better = (logits_for([0, 0, 1, 1, 2, 2], 3), [0, 0, 1, 1, 2, 2], (2, 1))
    documents = history(T0, worse, better)
    assert documents[1]["tag"]["forgetting_by_task"] == [pytest.approx(0.25)]
    assert documents[1]["tag"]["forgetting"] == documents[1]["tag"]["triangle_forgetting"] == pytest.approx(0.25)
    assert documents[1]["imbalance"] is None
    assert documents[2]["tag"]["forgetting_by_task"] == [0.0]  # the best was the first
    assert documents[2]["tag"]["triangle_forgetting"] == pytest.approx(0.125)


@pytest.mark.parametrize("ancestors", [[], [1, 2, 1], [1, 3], [2], [1, 1]], ids=str)
def test_versions_know_one_task_more_than_the_one_before_or_as_many(ancestors):
    before = [{form: {"accuracy": [1.0] * tasks} for form in ("tag", "taw")} for tasks in ancestors]
    found = measure(logits=np.eye(4), targets=np.arange(4), task_sizes=(1, 1, 2))
    with pytest.raises(ValueError, match="one task more than the one before or as many"):
        document(before, found, list("abcd"))


def test_triangle_forgetting_counts_gains_as_nothing():
    gained = (logits_for([0, 0, 1, 1, 2, 2], 3), [0, 0, 1, 1, 2, 2], (2, 1))
    worse = (logits_for([0, 1, 1, 1], 2), [0, 0, 1, 1], (2,))
    second = history(worse, gained)[1]["tag"]
    assert second["forgetting"] == pytest.approx(-0.25)
    assert second["backward_transfer"] == pytest.approx(0.25)
    assert second["triangle_forgetting"] == 0.0


def test_a_task_whose_images_are_gone_is_null_and_so_is_every_mean_over_it():
    gone = (logits_for([2, 2], 3), [2, 2], (2, 1))
    later = (logits_for([0, 0, 1, 0, 2, 0, 3, 4], 5), [0, 0, 1, 1, 2, 2, 3, 4], (2, 1, 2))
    documents = history(T0, gone, later)
    second, third = documents[1]["tag"], documents[2]["tag"]
    assert documents[1]["test_images"] == [None, 2]
    assert second["accuracy"] == [None, 1.0]
    for name in (
        "average_accuracy",
        "micro_accuracy",
        "average_incremental_accuracy",
        "forgetting",
        "backward_transfer",
        "triangle_accuracy",
        "triangle_forgetting",
    ):
        assert second[name] is None, name
    assert second["forgetting_by_task"] == [None]
    assert second["per_class"]["c0"] == {"support": 0, "precision": None, "recall": None, "f1": None}
    assert second["per_class"]["c2"] == {"support": 2, "precision": None, "recall": 1.0, "f1": None}
    # measured again: the maximum skips the null, the means over the whole history do not
    assert third["average_accuracy"] == pytest.approx((0.75 + 0.5 + 1) / 3)
    assert third["forgetting_by_task"] == pytest.approx([0.25, 0.5])
    assert third["forgetting"] == pytest.approx(0.375)
    assert third["average_incremental_accuracy"] is third["triangle_accuracy"] is third["triangle_forgetting"] is None


def test_a_network_that_calls_everything_new_gets_no_praise_while_the_old_tasks_are_unmeasured():
    """Its precision would be 1 and its calibration error 0, only because the images it would fail on are gone."""
    blind = np.tile([-9.0, -9.0, 9.0, -9.0, -9.0], (6, 1))
    found = measure(logits=blind, targets=np.array([2] * 6), task_sizes=(2, 1, 2), weight_norms=[1.0] * 5)
    base = {"accuracy": [1.0]}
    told = document(
        [dict.fromkeys(("tag", "taw"), base), {form: {"accuracy": [1.0, 1.0]} for form in ("tag", "taw")}],
        found,
        [f"c{n}" for n in range(5)],
    )
    assert told["tag"]["calibration_error"] is None
    assert told["tag"]["per_class"]["c2"] == {"support": 6, "precision": None, "recall": 1.0, "f1": None}
    assert told["tag"]["accuracy"] == [None, 1.0, None]
    assert {task["mean_logit_on_others"] for task in told["imbalance"]["tasks"]} == {None}
    assert told["imbalance"]["spread"]["mean_logit_on_others"] is None
    within = told["taw"]  # what is told apart within a measured task is known
    assert within["per_class"]["c2"] == {"support": 6, "precision": 1.0, "recall": 1.0, "f1": 1.0}
    assert within["calibration_error"] == 0.0


def test_backward_transfer_is_null_where_a_task_was_not_measured_at_first():
    unmeasured_new = (logits_for([0, 1], 3), [0, 1], (2, 1))
    third = history(T0, unmeasured_new, T2)[2]["tag"]
    assert third["forgetting_by_task"] == [pytest.approx(0.25), None]
    assert third["forgetting"] is third["backward_transfer"] is None


def test_nothing_measured_at_all_is_null_throughout():
    (empty,) = history((np.zeros((0, 2)), [], (2,)))
    assert empty["test_images"] == [None]
    assert empty["tag"]["accuracy"] == [None]
    assert empty["tag"]["average_accuracy"] is empty["tag"]["calibration_error"] is None
    assert empty["tag"]["confusion"] == []


def test_per_class_and_confusion_agree_with_scikit_learn():
    random = np.random.default_rng(0)
    sizes = (3, 1, 4)
    targets = np.concatenate([np.arange(8), random.integers(0, 8, 300)])
    logits = random.normal(0, 1, (308, 8)) + 1.5 * np.eye(8)[targets]
    found = document(
        [{"tag": {"accuracy": [1.0] * t}, "taw": {"accuracy": [1.0] * t}} for t in (1, 2)],
        measure(logits=logits, targets=targets, task_sizes=sizes),
        [str(index) for index in range(8)],
    )
    task = np.repeat(np.arange(3), sizes)
    aware = [np.flatnonzero(task == task[y])[z[task == task[y]].argmax()] for y, z in zip(targets, logits, strict=True)]
    for form, predicted in (("tag", logits.argmax(1)), ("taw", np.array(aware))):
        precision, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(targets, predicted)
        matrix = sklearn_metrics.confusion_matrix(targets, predicted)
        for index in range(8):
            assert found[form]["per_class"][str(index)] == pytest.approx(
                {"support": support[index], "precision": precision[index], "recall": recall[index], "f1": f1[index]}
            )
        sparse = {(true, guess): count for true, guess, count in found[form]["confusion"]}
        assert sparse == {(i, j): matrix[i, j] for i in range(8) for j in range(8) if matrix[i, j]}
        assert found[form]["micro_accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(targets, predicted))


def test_a_class_that_is_never_predicted_has_no_precision():
    (found,) = history((logits_for([0, 0, 0], 2), [0, 1, 1], (2,)))
    assert found["tag"]["per_class"]["c1"] == {"support": 2, "precision": None, "recall": 0.0, "f1": 0.0}


def test_calibration_error_worked_out_by_hand():
    confidence = np.array([0.95, 0.95, 0.95, 0.62, 0.62, 0.06])
    correct = np.array([True, True, False, True, False, False])
    # bins (14/15, 1]: |2/3 − 0.95| of 3, (9/15, 10/15]: |1/2 − 0.62| of 2, (0, 1/15]: 0.06 of 1
    expected = (3 * (0.95 - 2 / 3) + 2 * 0.12 + 0.06) / 6
    assert expected_calibration_error(confidence, correct) == pytest.approx(expected)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below():
    # 0.2 = 3/15 shares a bin with 0.19 (errors cancel: mean confidence 0.195, accuracy ½), not with 0.21.
    assert expected_calibration_error(np.array([0.2, 0.19]), np.array([True, False])) == pytest.approx(0.5 - 0.195)
    assert expected_calibration_error(np.array([0.2, 0.21]), np.array([True, False])) == pytest.approx((0.8 + 0.21) / 2)
    assert expected_calibration_error(np.array([1.0, 0.0]), np.array([True, False])) == 0.0


def test_calibration_uses_the_softmax_of_what_is_chosen_from():
    # Equal logits: confidence ¼ over four classes and ½ within a task of two.
    found = measure(logits=np.zeros((4, 4)), targets=np.array([0, 1, 2, 3]), task_sizes=(2, 2))
    assert found.tag.calibration_error == pytest.approx(0.0)  # class 0 is chosen each time, right once in four
    assert found.taw.calibration_error == pytest.approx(0.0)  # right every second time
    sure = measure(logits=np.array([[np.log(3), 0.0]]), targets=np.array([0]), task_sizes=(2,))
    assert sure.tag.calibration_error == pytest.approx(0.25)


def test_imbalance_worked_out_by_hand():
    logits = np.array([[1.0, 3, 5], [2, 4, 7], [9, 11, 0]])
    found = measure(
        logits=logits,
        targets=np.array([0, 1, 2]),
        task_sizes=(2, 1),
        weight_norms=[1.0, 2.0, 4.0],
        biases=[0.5, -0.5, 2.0],
    )
    base = {"accuracy": [1.0]}
    assert document([{"tag": base, "taw": base}], found, ["a", "b", "c"])["imbalance"] == {
        "tasks": [
            {"mean_logit_on_others": 10.0, "weight_norm": 1.5, "bias": 0.0},
            {"mean_logit_on_others": 6.0, "weight_norm": 4.0, "bias": 2.0},
        ],
        "spread": {"mean_logit_on_others": 2.0, "weight_norm": 1.25, "bias": 1.0},  # half the distance of two
    }


def test_levels_on_others_are_null_while_a_task_is_unmeasured():
    found = measure(logits=np.ones((2, 3)), targets=np.array([2, 2]), task_sizes=(2, 1), weight_norms=[1.0, 1.0, 1.0])
    base = {"accuracy": [1.0]}
    imbalance = document([{"tag": base, "taw": base}], found, ["a", "b", "c"])["imbalance"]
    assert [task["mean_logit_on_others"] for task in imbalance["tasks"]] == [None, None]
    assert imbalance["spread"] == {"mean_logit_on_others": None, "weight_norm": 0.0, "bias": None}


def test_documents_are_plain_json():
    documents = history(T0, T1, T2)
    assert json.loads(json.dumps(documents, allow_nan=False)) == documents


def test_documents_read_back_from_json_serve_as_ancestors():
    stored = json.loads(json.dumps(history(T0, T1)))
    logits, targets, sizes = T2
    again = document(stored, measure(logits=logits, targets=np.array(targets), task_sizes=sizes), list("abcde"))
    assert again["tag"]["accuracy"] == [0.75, 0.5, 0.5]
    assert again["tag"]["forgetting"] == pytest.approx(0.375)


def test_curves_gather_the_history():
    gathered = curves(history(T0, T1, T2))
    assert gathered["tag"]["matrix"] == [[1.0], [0.5, 1.0], [0.75, 0.5, 0.5]]
    assert gathered["tag"]["average_accuracy"] == pytest.approx([1, 0.75, 1.75 / 3])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"logits": np.zeros((2, 4))}, r"logits: expected \[2, 3\], got \[2, 4\]"),
        ({"logits": np.full((2, 3), np.nan)}, "finite"),
        ({"targets": np.array([0, 3])}, "targets: expected 0 … 2, got 0 … 3"),
        ({"targets": np.array([-1, 2])}, "targets: expected 0 … 2, got -1 … 2"),
        ({"biases": [0.0]}, "biases: expected one for each of 3 classes, got 1"),
    ],
)
def test_wrong_input_says_what_was_expected_and_what_came(wrong, message):
    good: dict[str, Any] = {"logits": np.zeros((2, 3)), "targets": np.array([0, 2]), "task_sizes": (2, 1)}
    with pytest.raises(ValueError, match=message):
        measure(**(good | wrong))


def test_a_line_of_ancestors_with_a_gap_is_refused():
    logits, targets, sizes = T2
    measurement = measure(logits=logits, targets=np.array(targets), task_sizes=sizes)
    with pytest.raises(ValueError, match=r"one task more than the one before or as many, got \[1, 3\]"):
        document(history(T0), measurement, list("abcde"))
    with pytest.raises(ValueError, match="expected 5 labels, got 2"):
        document(history(T0, T1), measurement, list("ab"))
