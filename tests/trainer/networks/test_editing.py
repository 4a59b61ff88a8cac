"""Networks after an edit: of what the logits of dropped and merged classes are made."""

from pathlib import Path

import onnxruntime
import pytest
import torch

from trainer.export.graph import export
from trainer.learning.fixed import fixed_parts
from trainer.networks import EvaluationTransform, build, load_version, write_version
from trainer.networks.editing import edited
from trainer.networks.incremental import pooled
from trainer.recipes import known

SIZE = 32
TRANSFORM = EvaluationTransform(SIZE, 3, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25))
# of the five classes 0 … 4 in the tasks [0, 1], [2], [3, 4]: 1 is dropped, 0 and 3 are merged, and so are 2 and 4
PLAN = [[[0, 3]], [[2, 4]]]


@pytest.fixture(params=["linear", "cosine"])
def network(request):
    torch.manual_seed(7)
    made = build("resnet32", channels=3, image_size=SIZE, task_sizes=[2, 1, 2], head_kind=request.param).eval()
    for head in made.heads:
        torch.nn.init.normal_(head.get_parameter("weight"))
    return made


@pytest.fixture
def images():
    return torch.randint(0, 256, (6, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


def logits(network, images):
    with torch.inference_mode():
        return network(TRANSFORM.normalise(images))


def test_probabilities_of_merged_classes_add_up(network, images):
    before = logits(network, images)
    after = logits(edited(network, [[[0, 3], [1]], [[2, 4]]]), images).softmax(dim=1)
    shares = before.softmax(dim=1)
    expected = torch.stack([shares[:, 0] + shares[:, 3], shares[:, 1], shares[:, 2] + shares[:, 4]], dim=1)
    torch.testing.assert_close(after, expected)


def test_logits_of_other_classes_stay_when_one_is_dropped(network, images):
    before = logits(network, images)
    made = edited(network, [[[0]], [[2]], [[3], [4]]])
    assert made.task_sizes == (1, 1, 2)
    torch.testing.assert_close(logits(made, images), before[:, [0, 2, 3, 4]])
    assert torch.equal(logits(network, images), before)  # the network itself is as it was


def test_merged_classes_are_merged_once_more(network, images):
    made = edited(edited(network, PLAN), [[[0, 1]]])
    assert made.rows == ((4,),)
    expected = logits(network, images)[:, [0, 2, 3, 4]].logsumexp(dim=1, keepdim=True)
    torch.testing.assert_close(logits(made, images), expected)


def test_an_edited_version_is_the_same_after_it_was_stored(network, images, tmp_path: Path):
    made = edited(network, PLAN)
    write_version(tmp_path, made, transform=TRANSFORM, manifest={"tasks": [["x"], ["y"]]})
    loaded = load_version(tmp_path)
    assert loaded.network.rows == ((2,), (2,))
    assert torch.equal(logits(loaded.network, images), logits(made, images))


def test_the_graph_of_an_edited_version_computes_what_its_network_does(network, images, tmp_path: Path):
    made = edited(network, PLAN)
    session = onnxruntime.InferenceSession(export(made, TRANSFORM, by_dynamo=False).SerializeToString())
    found = session.run(["logits"], {"pixels": images.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(found), logits(made, images), rtol=1e-4, atol=1e-4)


def test_an_edited_network_learns_a_further_task_and_its_unshown_rows_stay(network, images):
    made = edited(network, PLAN).train()
    made.add_task(2)
    fixed = fixed_parts(made, strategy=known("lwf"), shown=[0, 5, 5, 5], old_tasks=2)
    assert any(module is made.heads[0] for module in fixed.modules)
    torch.nn.functional.cross_entropy(made(TRANSFORM.normalise(images)), torch.tensor([1, 2, 3, 1, 2, 3])).backward()
    gradient = made.heads[1].get_parameter("weight").grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def test_norms_and_biases_of_a_merged_class_are_the_means_of_its_rows(network):
    made, norms = edited(network, PLAN), network.row_norms()
    torch.testing.assert_close(made.row_norms(), torch.stack([(norms[0] + norms[3]) / 2, (norms[2] + norms[4]) / 2]))
    if (biases := network.biases()) is not None:
        torch.testing.assert_close(made.biases(), torch.stack([biases[[0, 3]].mean(), biases[[2, 4]].mean()]))


def test_neighbours_are_pooled_and_the_others_are_left():
    scores = torch.arange(12.0).view(2, 6)
    found = pooled(scores, [1, 2, 1, 2])
    assert torch.equal(found[:, [0, 2]], scores[:, [0, 3]])
    torch.testing.assert_close(found[:, 1], scores[:, 1:3].logsumexp(dim=1))
    torch.testing.assert_close(found[:, 3], scores[:, 4:].logsumexp(dim=1))
    assert pooled(scores, [1] * 6) is scores


@pytest.mark.parametrize(("classes", "rows"), [(0, None), (2, [1]), (2, [1, 0])])
def test_a_task_or_class_without_a_row_is_refused(network, classes, rows):
    with pytest.raises(ValueError, match="at least one"):
        network.add_task(classes, rows=rows)
