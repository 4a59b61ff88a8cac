"""network.onnx is written when it agrees with the network, by the exporter that can."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from storage.errors import Invalid
from tests.trainer.export.material import network, pixels, transform
from trainer.export import Disagreement, NotExportable, executable, graph, write_executable
from trainer.export.agreement import open_session
from trainer.learning.data import ImageSet
from trainer.process.executable import COMPARED, add_executable, sample

plain_export = graph.export


def failing(monkeypatch: pytest.MonkeyPatch, *, exporters: set[bool]) -> list[bool]:
    """Let some exporters fail; the list of those that were tried."""
    tried: list[bool] = []

    def export(*arguments: Any, by_dynamo: bool) -> onnx.ModelProto:
        tried.append(by_dynamo)
        if by_dynamo in exporters:
            raise RuntimeError("this operator is unknown\nand much more")
        return plain_export(*arguments, by_dynamo=by_dynamo)

    monkeypatch.setattr(graph, "export", export)
    return tried


def wrong(monkeypatch: pytest.MonkeyPatch, *, exporters: set[bool]) -> None:
    """Let some exporters write the graph of another network."""
    other = network()
    with torch.no_grad():
        next(iter(other.parameters())).mul_(1.5)

    def export(of: Any, *arguments: Any, by_dynamo: bool) -> onnx.ModelProto:
        return plain_export(other if by_dynamo in exporters else of, *arguments, by_dynamo=by_dynamo)

    monkeypatch.setattr(graph, "export", export)


def test_the_record_says_how_it_was_made_and_compared(tmp_path):
    record = write_executable(tmp_path / "network.onnx", network(), transform(), pixels=pixels(60))
    assert 0 <= record.pop("largest_difference") < 1e-5
    assert record == {"opset": graph.OPSET, "exporter": "trace", "images": 60}
    session = open_session((tmp_path / "network.onnx").read_bytes(), threads=1)
    described = session.get_modelmeta().custom_metadata_map
    assert described.keys() == {"exporter", "torch", "accrete"}
    assert (described["exporter"], described["torch"]) == ("trace", torch.__version__)


def test_the_second_exporter_is_tried_where_the_first_cannot(tmp_path, monkeypatch):
    tried = failing(monkeypatch, exporters={False})
    record = write_executable(tmp_path / "network.onnx", network(), transform(), pixels=pixels(3))
    assert (tried, record["exporter"]) == ([False, True], "dynamo")


def test_the_second_exporter_is_tried_where_the_first_is_wrong(tmp_path, monkeypatch):
    wrong(monkeypatch, exporters={False})
    record = write_executable(tmp_path / "network.onnx", network(), transform(), pixels=pixels(3))
    assert record["exporter"] == "dynamo"


def test_a_network_that_no_exporter_can_write(tmp_path, monkeypatch):
    failing(monkeypatch, exporters={False, True})
    with pytest.raises(NotExportable, match=r"\Athis operator is unknown\Z"):
        write_executable(tmp_path / "network.onnx", network(), transform(), pixels=pixels(3))
    assert list(tmp_path.iterdir()) == []


def test_a_disagreement_is_what_counts_where_the_other_exporter_cannot(tmp_path, monkeypatch):
    wrong(monkeypatch, exporters={False})
    failing_too = graph.export

    def export(*arguments: Any, by_dynamo: bool) -> onnx.ModelProto:
        if by_dynamo:
            raise RuntimeError("unknown")
        return failing_too(*arguments, by_dynamo=by_dynamo)

    monkeypatch.setattr(graph, "export", export)
    with pytest.raises(Disagreement):
        write_executable(tmp_path / "network.onnx", network(), transform(), pixels=pixels(3))
    assert list(tmp_path.iterdir()) == []


def test_weights_that_fill_more_than_a_graph_can_hold_are_not_tried(tmp_path, monkeypatch):
    tried = failing(monkeypatch, exporters=set())
    monkeypatch.setattr(executable, "MOST_BYTES", 1000)
    with pytest.raises(NotExportable, match="a graph has at most 2 GiB"):
        write_executable(tmp_path / "network.onnx", network(), transform(), pixels=pixels(3))
    assert tried == []


def test_a_network_in_training_mode_stays_in_it(tmp_path):
    training = network().train()
    write_executable(tmp_path / "network.onnx", training, transform(), pixels=pixels(3))
    assert training.training


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_network_on_a_gpu_is_exported_and_stays_there(tmp_path):
    there = network().to("cuda", memory_format=torch.channels_last)  # type: ignore[call-overload]
    record = write_executable(tmp_path / "network.onnx", there, transform(), pixels=pixels(60))
    assert record["largest_difference"] < 1e-5
    assert next(there.parameters()).device.type == "cuda"


def test_a_version_without_an_exporter_has_the_reason_in_its_record(tmp_path, monkeypatch):
    failing(monkeypatch, exporters={False, True})
    assert add_executable(tmp_path, network(), transform(), images(3)) == {"error": "this operator is unknown"}
    assert list(tmp_path.iterdir()) == []


def test_a_version_whose_graph_disagrees_is_refused_for_good(tmp_path, monkeypatch):
    wrong(monkeypatch, exporters={False, True})
    with pytest.raises(Invalid, match=r"not published, because its ONNX graph does not compute .* resnet32"):
        add_executable(tmp_path, network(), transform(), images(3))
    assert list(tmp_path.iterdir()) == []


def images(count: int) -> ImageSet:
    """Images whose first pixel tells their place, as far as a byte can."""
    pool = pixels(count)
    pool[:, 0, 0, 0] = torch.arange(count).remainder(256).to(torch.uint8)
    return ImageSet(pool, torch.zeros(count, dtype=torch.int64), tuple(map(str, range(count))))


@pytest.mark.parametrize("count", [0, 1, 200, COMPARED])
def test_few_images_are_all_compared(count):
    assert sample(images(count))[:, 0, 0, 0].sort().values.tolist() == list(range(count))


def test_of_many_images_a_share_is_compared_that_spreads_over_all_of_them():
    many = images(1024)
    chosen = sample(many)
    place = {bytes(image.flatten().tolist()): position for position, image in enumerate(many.pixels)}
    places = [place[bytes(image.flatten().tolist())] for image in chosen]
    assert len(set(places)) == COMPARED
    assert max(b - a for a, b in pairwise(sorted(places))) <= 5
    assert (min(places), max(places)) == (0, 1023)
    assert len({position // 128 for position in places[:52]}) == 8  # the first ones are of all parts, too
    assert torch.equal(sample(many), chosen)


def test_the_file_is_the_whole_graph(tmp_path: Path) -> None:
    write_executable(tmp_path / "network.onnx", network(), transform(), pixels=pixels(3))
    onnx.checker.check_model(str(tmp_path / "network.onnx"), full_check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["network.onnx"]
