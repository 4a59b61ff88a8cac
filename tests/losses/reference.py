"""LOSSES.md spelled out in float64, image by image and class by class, as an oracle: shares nothing with `losses`."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from tests.losses.minibatches import Floats, Minibatch

# J, ΣK, ΣB and P of LwF and LwM: the table of LOSSES.md. Of LUCIR: what stands in the place of J there is F, the
# less-forget term, and γ = 0.1 is multiplied out.
SOFTMAX_TABLE = {
    "": (1, 0, 0, 0),
    "-s": (0, 1, 0, 0),
    "-sr": (0.5, 1, 0, 0),
    "-br": (1, 0, 1, 0),
    "-br2": (1, 0, 1, 1),
    "-bsr": (1, 1, 0.5, 0),
}
LUCIR_TABLE = {
    "": (1, 0, 0, 0),
    "-s": (0, 0.1, 0, 0),
    "-sr": (1, 0.1, 0, 0),
    "-br": (1, 0, 1, 0),
    "-br2": (1, 0, 1, 1),
    "-bsr": (1, 0.1, 0.5, 0),
}
BASELINES = ("finetune", "freeze", "joint")
FAMILIES = ("lwf", "lwm", "lucir")
NAMES = (*BASELINES, *(family + suffix for family in FAMILIES for suffix in SOFTMAX_TABLE))


@dataclass(frozen=True)
class Hyper:
    """Hyper-parameters; None is the family's own value."""

    distillation_weight: float | None = None
    temperature: float | None = None
    task_reduction: str = "sum"
    label_smoothing: float = 0.0
    attention_weight: float = 1.0
    margin_weight: float = 1.0
    margin: float = 0.5
    hardest_classes: int = 2


Weighted = dict[str, tuple[float, float]]  # of each term its weight and value


def parts(name: str, given: Minibatch, hyper: Hyper) -> dict[str, float]:
    """The weighted terms of a strategy, by name."""
    family, _, form = name.partition("-")
    form = f"-{form}" if form else ""
    old = sum(given.task_sizes[:-1])
    row = (LUCIR_TABLE if family == "lucir" else SOFTMAX_TABLE)[form]
    seen = [target for target, count in enumerate(given.shown) if count or family == "lucir"]
    weighted: Weighted = {
        "classification": (1, _over_images(given, lambda n: _cross_entropy(given, n, seen, hyper.label_smoothing))),
        "binary_prediction": (row[3], _over_images(given, lambda n: _prediction(given, n, seen))),
    }
    if old and family == "lucir":
        weighted |= _lucir(row, given, hyper, old)
    elif old and family not in BASELINES:
        weighted |= _softmax(row, given, hyper, old)
    if old and family == "lwm":
        weighted["attention"] = (hyper.attention_weight, _over_images(given, lambda n: _attention(given, n)))
    return {term: weight * value for term, (weight, value) in weighted.items() if weight}


def _softmax(row: tuple[float, ...], given: Minibatch, hyper: Hyper, old: int) -> Weighted:
    """What LwF keeps, and LwM: λ = 1 and T = 2."""
    joint, separated, binary, _ = row
    scale = 1.0 if hyper.distillation_weight is None else hyper.distillation_weight
    temperature = hyper.temperature or 2.0
    return {
        "joint": (scale * joint, _over_images(given, lambda n: _kept(given, n, range(old), temperature))),
        "separated": (scale * separated, _over_tasks(given, hyper, lambda n, span: _kept(given, n, span, temperature))),
        "binary": (scale * binary, _over_tasks(given, hyper, lambda n, span: _kept_binary(given, n, span))),
    }


def _lucir(row: tuple[float, ...], given: Minibatch, hyper: Hyper, old: int) -> Weighted:
    """What LUCIR keeps: λ_t = 5·√(C_old / C_new) and T = 1."""
    less_forget, separated, binary, _ = row
    scale = 5.0 if hyper.distillation_weight is None else hyper.distillation_weight
    scale *= math.sqrt(old / given.task_sizes[-1])
    temperature = hyper.temperature or 1.0
    return {
        "less_forget": (scale * less_forget, _over_images(given, lambda n: _turned(given, n))),
        "separated": (scale * separated, _over_tasks(given, hyper, lambda n, span: _kept(given, n, span, temperature))),
        "binary": (scale * binary, _over_tasks(given, hyper, lambda n, span: _kept_binary(given, n, span))),
        "margin_ranking": (hyper.margin_weight, _margin_ranking(given, old, hyper)),
    }


def total(name: str, given: Minibatch, hyper: Hyper) -> float:
    return math.fsum(parts(name, given, hyper).values())


def distance_to_kinks(name: str, given: Minibatch, hyper: Hyper) -> float:
    """How far the nearest fold of hinge, choice of the hardest, or L1 is: differences across it mean nothing."""
    old, folds = sum(given.task_sizes[:-1]), [math.inf]
    if name.startswith("lwm"):
        for student, teacher in zip(given.student_attention, given.teacher_attention, strict=True):
            folds += [abs(a - b) for a, b in zip(_unit(student), _unit(teacher), strict=True)]
    if name.startswith("lucir") and old:
        for z, y in zip(given.student_logits, given.targets, strict=True):
            if y < old:
                cosines = [value / float(given.student_scale) for value in z]
                new = sorted(cosines[old:], reverse=True)
                folds += [abs(hyper.margin - cosines[y] + value) for value in new]
                folds += [a - b for a, b in pairwise(new)]
    return min(folds)


def _over_images(given: Minibatch, value: Callable[[int], float]) -> float:
    return math.fsum([value(n) for n in range(len(given.targets))]) / len(given.targets)


def _over_tasks(given: Minibatch, hyper: Hyper, value: Callable[..., float]) -> float:
    """The sum or mean over old tasks of the mean over images."""
    each, start = [], 0
    for size in given.task_sizes[:-1]:
        span = range(start, start + size)
        each.append(_over_images(given, partial(value, span=span)))
        start += size
    return math.fsum(each) / (len(each) if hyper.task_reduction == "mean" else 1)


def _log_softmax(logits: list[float]) -> list[float]:
    largest = max(logits)
    rest = math.log(math.fsum([math.exp(value - largest) for value in logits]))
    return [value - largest - rest for value in logits]


def _log_sigmoid(logit: float) -> float:
    return min(logit, 0.0) - math.log1p(math.exp(-abs(logit)))


def _binary(logit: float, *, present: float, absent: float) -> float:
    """−p·log σ(z) − (1 − p)·log(1 − σ(z)), with p and 1 − p given."""
    return -present * _log_sigmoid(logit) - absent * _log_sigmoid(-logit)


def _cross_entropy(given: Minibatch, n: int, seen: Sequence[int], smoothing: float) -> float:
    loss = 0.0
    for c, log_p in zip(seen, _log_softmax([float(given.student_logits[n, c]) for c in seen]), strict=True):
        loss -= ((1 - smoothing) * (c == given.targets[n]) + smoothing / len(seen)) * log_p
    return loss


def _prediction(given: Minibatch, n: int, seen: Sequence[int]) -> float:
    labelled = [
        _binary(
            float(given.student_logits[n, c]), present=float(c == given.targets[n]), absent=float(c != given.targets[n])
        )
        for c in seen
    ]
    return math.fsum(labelled) / len(seen)


def _kept(given: Minibatch, n: int, span: range, temperature: float) -> float:
    """KD_T over some classes."""
    assert given.teacher_logits is not None
    student = _log_softmax([float(given.student_logits[n, c]) / temperature for c in span])
    teacher = _log_softmax([float(given.teacher_logits[n, c]) / temperature for c in span])
    return -math.fsum([math.exp(b) * a for a, b in zip(student, teacher, strict=True)])


def _kept_binary(given: Minibatch, n: int, span: range) -> float:
    """B of one task."""
    assert given.teacher_logits is not None
    each = []
    for c in span:
        teacher = float(given.teacher_logits[n, c])
        present, absent = math.exp(_log_sigmoid(teacher)), math.exp(_log_sigmoid(-teacher))
        each.append(_binary(float(given.student_logits[n, c]), present=present, absent=absent))
    return math.fsum(each) / len(span)


def _turned(given: Minibatch, n: int) -> float:
    """1 − cosine of the features."""
    a, b = given.student_features[n].tolist(), given.teacher_features[n].tolist()
    return 1 - math.fsum([x * y for x, y in zip(a, b, strict=True)]) / (math.hypot(*a) * math.hypot(*b))


def _unit(attention: Floats) -> list[float]:
    flat = [float(value) for row in attention for value in row]
    norm = max(math.hypot(*flat), 1e-12)
    return [value / norm for value in flat]


def _attention(given: Minibatch, n: int) -> float:
    student, teacher = _unit(given.student_attention[n]), _unit(given.teacher_attention[n])
    return math.fsum([abs(a - b) for a, b in zip(student, teacher, strict=True)])


def _margin_ranking(given: Minibatch, old: int, hyper: Hyper) -> float:
    violations = []
    for z, y in zip(given.student_logits, given.targets, strict=True):
        if y < old:
            cosines = [float(value) / float(given.student_scale) for value in z]
            violations += [
                max(0.0, hyper.margin - cosines[y] + cosine)
                for cosine in sorted(cosines[old:], reverse=True)[: hyper.hardest_classes]
            ]
    return math.fsum(violations) / len(violations) if violations else 0.0
