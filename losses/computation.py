"""The terms of `losses.terms` on a minibatch: for each, the function of its name gives a scalar in nats, unweighted."""

from torch import Tensor

from losses import classification as labels
from losses import distillation, representation
from losses.hyperparameters import HyperParameters
from losses.minibatch import Minibatch


def classification(given: Minibatch, hyper: HyperParameters) -> Tensor:
    """CE, over the classes shown."""
    return labels.softmax_cross_entropy(
        student_logits=given.shown_logits,
        targets=given.shown.targets(given.targets),
        label_smoothing=hyper.label_smoothing,
    )


def binary_prediction(given: Minibatch, _hyper: HyperParameters) -> Tensor:
    """P, over the classes shown."""
    return labels.binary_prediction(student_logits=given.shown_logits, targets=given.shown.targets(given.targets))


def joint(given: Minibatch, hyper: HyperParameters) -> Tensor:
    """J, over all old classes."""
    return distillation.joint_distillation(
        student_logits=given.old_logits,
        teacher_logits=given.the("teacher_logits"),
        temperature=hyper.temperature,
    )


def separated(given: Minibatch, hyper: HyperParameters) -> Tensor:
    """ΣKᵢ, over the old tasks."""
    return distillation.separated_distillation(
        student_logits=given.old_logits,
        teacher_logits=given.the("teacher_logits"),
        tasks=given.old_tasks,
        temperature=hyper.temperature,
        task_reduction=hyper.task_reduction,
    )


def binary(given: Minibatch, hyper: HyperParameters) -> Tensor:
    """ΣBᵢ, over the old tasks."""
    return distillation.binary_distillation(
        student_logits=given.old_logits,
        teacher_logits=given.the("teacher_logits"),
        tasks=given.old_tasks,
        task_reduction=hyper.task_reduction,
    )


def less_forget(given: Minibatch, _hyper: HyperParameters) -> Tensor:
    """F, between the features."""
    return representation.less_forget(
        student_features=given.the("student_features"), teacher_features=given.the("teacher_features")
    )


def attention(given: Minibatch, _hyper: HyperParameters) -> Tensor:
    """Att, between the attention maps."""
    return representation.attention_distillation(
        student_attention=given.the("student_attention"), teacher_attention=given.the("teacher_attention")
    )


def margin_ranking(given: Minibatch, hyper: HyperParameters) -> Tensor:
    """MR, on cosines."""
    return representation.margin_ranking(
        cosines=given.student_logits / given.the("student_scale"),
        targets=given.targets,
        old_classes=given.old_classes,
        margin=hyper.margin,
        hardest_classes=hyper.hardest_classes,
    )
