"""network.pt2 is written when it agrees with the network, and says what it is by itself."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.export.material import network, pixels, transform
from trainer.export import Disagreement, NotExportable, write_program
from trainer.export import program as programs
from trainer.networks import IncrementalNetwork


def described(record: Mapping[str, Any]) -> Mapping[str, str]:
    return {"agreement": json.dumps(record), "license": "not stated"}


def made(path: Path, trained: IncrementalNetwork, *, channels: int = 3, size: int = 16) -> dict[str, Any]:
    shape = {"channels": channels, "size": size}
    return write_program(path, trained, transform(**shape), pixels=pixels(70, **shape), describe=described)


@pytest.mark.parametrize(
    ("name", "head", "channels", "size"),
    [("resnet32", "linear", 1, 16), ("resnet32", "cosine", 3, 16), ("mobilenet_v3_small", "linear", 3, 32)],
)
def test_the_program_computes_what_the_network_computes_for_any_number_of_images(
    tmp_path: Path, name: str, head: str, channels: int, size: int
):
    trained = network(name, head=head, channels=channels, size=size)
    record = made(tmp_path / "network.pt2", trained, channels=channels, size=size)
    assert record["images"] == 70
    assert record["largest_difference"] < 1e-4
    entries = {"agreement": "", "license": ""}
    loaded = torch.export.load(tmp_path / "network.pt2", extra_files=entries).module()
    for images in (1, 5):
        shown = pixels(images, channels=channels, size=size)
        with torch.inference_mode():
            expected = trained(transform(channels=channels, size=size).normalise(shown)).softmax(dim=1)
            torch.testing.assert_close(loaded(shown)[2], expected, atol=1e-4, rtol=0)
    assert json.loads(entries["agreement"]) == record
    assert entries["license"] == "not stated"


def test_a_network_on_its_way_is_left_as_it_is(tmp_path: Path):
    trained = network().train()
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    made(tmp_path / "network.pt2", trained)
    assert trained.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in trained.state_dict().items())


def test_a_program_of_something_else_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plain = programs._read_back

    def halved(program: torch.export.ExportedProgram) -> Any:
        loaded = plain(program)
        return lambda part: tuple(output / 2 for output in loaded(part))

    monkeypatch.setattr(programs, "_read_back", halved)
    with pytest.raises(Disagreement, match="logits differ"):
        made(tmp_path / "network.pt2", network())
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_no_exporter_takes_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refused(*_: Any, **__: Any) -> None:
        raise RuntimeError("this operator is unknown\nand much more")

    monkeypatch.setattr(torch.export, "export", refused)
    with pytest.raises(NotExportable, match=r"^this operator is unknown$"):
        made(tmp_path / "network.pt2", network())
