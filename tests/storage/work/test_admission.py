"""Whether a batch can be learned."""

import pytest

from storage.domain import ClassCount, KnownClasses
from storage.errors import AccreteError, BatchInvalid, ClassesAlreadyKnown, NothingToLearn
from storage.work.admission import check_classes
from tests.storage.worlds import counts

REFUSE, REHEARSE = KnownClasses.REFUSE, KnownClasses.REHEARSE


@pytest.mark.parametrize(
    ("batch", "known", "policy", "has_memory", "error"),
    [
        ("ab", "", REFUSE, False, None),
        ("ab", "", REFUSE, True, None),
        ("cd", "ab", REFUSE, False, None),
        ("", "", REFUSE, True, NothingToLearn),
        ("", "ab", REFUSE, True, NothingToLearn),
        ("bc", "ab", REFUSE, True, ClassesAlreadyKnown),
        ("ab", "ab", REFUSE, True, ClassesAlreadyKnown),
        ("bc", "ab", REHEARSE, False, None),
        ("ab", "ab", REHEARSE, True, None),
        ("ab", "ab", REHEARSE, False, None),
        ("a", "ab", REHEARSE, True, NothingToLearn),  # nothing of b is stored
        ("", "ab", REHEARSE, True, NothingToLearn),
        ("a", "", REFUSE, False, NothingToLearn),
        ("a", "", REFUSE, True, NothingToLearn),  # there is nothing to rehearse yet
        ("c", "ab", REFUSE, False, NothingToLearn),
        ("c", "ab", REHEARSE, False, NothingToLearn),
        ("c", "ab", REFUSE, True, None),
    ],
)
def test_a_batch_passes_if_its_classes_can_be_learned(
    batch: str, known: str, policy: KnownClasses, has_memory: bool, error: type[AccreteError] | None
):
    def check() -> None:
        check_classes(batch=counts(*batch), known=set(known), policy=policy, has_memory=has_memory)

    if error is None:
        check()
    else:
        with pytest.raises(error):
            check()


@pytest.mark.parametrize(
    ("batch", "has_memory", "stored", "missing"),
    [
        ("a", True, "abc", ""),
        ("a", True, "bc", ""),
        ("a", True, "ab", "c"),  # whose exemplars were erased
        ("a", False, "abc", "bc"),  # which are stored, and not rehearsed
        ("ab", False, "", "c"),
        ("abc", False, "", ""),
        ("", True, "abc", "nothing sent"),
    ],
)
def test_images_of_known_classes_alone_pass_if_every_class_is_shown(
    batch: str, has_memory: bool, stored: str, missing: str
):
    def check() -> None:
        check_classes(batch=counts(*batch), known="abc", policy=REHEARSE, has_memory=has_memory, stored=stored)

    if not missing:
        check()
        return
    with pytest.raises(NothingToLearn, match=r"no new class|no class at all") as refused:
        check()
    if batch:
        assert refused.value.extra == {"classes": [*missing]}
        assert all(repr(label) in refused.value.detail for label in missing)
        assert "memory" in refused.value.detail


def test_known_classes_are_named_with_the_increment_that_brought_the_same_archive():
    with pytest.raises(ClassesAlreadyKnown, match=r"'a', 'b'.*rehearse") as refused:
        check_classes(
            batch=counts("c", "b", "a"), known={"a", "b"}, policy=REFUSE, has_memory=True, duplicate_of="0123"
        )
    assert refused.value.extra == {"classes": ["a", "b"], "duplicate_of": "0123"}


def test_a_message_stays_short_and_the_document_complete():
    labels = [f"class-{number:03}" for number in range(100)]
    with pytest.raises(ClassesAlreadyKnown) as refused:
        check_classes(batch=counts(*labels), known=labels, policy=REFUSE, has_memory=True)
    assert "'class-019' and 80 more" in refused.value.detail
    assert "class-020" not in refused.value.detail
    assert refused.value.extra["classes"] == labels


@pytest.mark.parametrize(("train", "test", "enough"), [(1, 0, False), (2, 0, True), (1, 1, True)])
def test_a_class_needs_two_images(train: int, test: int, enough: bool):
    batch = (*counts("a", "b"), ClassCount("few", train=train, test=test))
    if enough:
        check_classes(batch=batch, known=(), policy=REFUSE, has_memory=False)
    else:
        with pytest.raises(BatchInvalid, match="'few'") as refused:
            check_classes(batch=batch, known=(), policy=REFUSE, has_memory=False)
        assert refused.value.extra == {"classes": ["few"]}


@pytest.mark.parametrize(("known", "ways_out"), [((), {"second"}), (("a", "b"), {"second", "memory"})])
def test_a_class_alone_is_refused_with_the_ways_out(known: tuple[str, ...], ways_out: set[str]):
    with pytest.raises(NothingToLearn, match="'lonely' alone") as refused:
        check_classes(batch=counts("lonely"), known=known, policy=REFUSE, has_memory=False)
    assert {word for word in ("second", "memory") if word in refused.value.detail} == ways_out
