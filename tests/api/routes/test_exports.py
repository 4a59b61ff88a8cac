"""Model cards and exports: what leaves the service with a version."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import yaml
from typer.testing import CliRunner

from api.commands.commandline import app
from api.views import exports
from api.views.cards import Subject, card
from storage.domain import StoredFile
from storage.history import exports as wishes
from storage.history import metrics, models, versions
from tests.api.worlds import SIZE, network_onnx, picture, problem
from trainer.networks import EvaluationTransform, build
from trainer.networks.manifest import EXECUTABLE, PROGRAM

HOSTILE = ("*bold* | `code` & <b>", 'größe: "no"', "[link](http://example.org) # head")
SECTIONS = ["Intended use", "Data", "Training", "Evaluation", "Limits", "Files", "Use"]


@pytest.fixture(scope="module")
def model(shared_world):
    """A model of five classes in two versions, with names that look like markup."""
    name = shared_world.model()
    shared_world.version(name, "cat", "dog")
    shared_world.version(name, *HOSTILE)
    return name


def exported(http, model, number, **query):
    """The answer to an export."""
    return http.get(f"/v1/models/{model}/versions/{number}/export", params=query)


def card_of(http, model, number):
    """A version's card."""
    answer = http.get(f"/v1/models/{model}/versions/{number}/card")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
    return answer.text


def entries(content: bytes) -> dict[str, str]:
    """The metadata of a graph."""
    return {one.key: one.value for one in onnx.load_from_string(content).metadata_props}


def test_an_export_is_the_served_graph_with_its_labels(http, model):
    answer = exported(http, model, 2)
    assert answer.headers["content-disposition"] == f'attachment; filename="{model}-2.onnx"'
    stored = http.get(f"/v1/models/{model}/versions/2/files/{EXECUTABLE}").content
    assert answer.content.startswith(stored)
    graph, whole = onnx.load_from_string(stored), onnx.load_from_string(answer.content)
    onnx.checker.check_model(whole)
    assert (graph.graph, graph.opset_import) == (whole.graph, whole.opset_import)
    found = entries(answer.content)
    assert entries(stored).items() <= found.items()
    version = http.get(f"/v1/models/{model}/versions/2").json()
    manifest = http.get(f"/v1/models/{model}/versions/2/files/version.json").json()
    assert json.loads(found["labels"]) == version["classes"] == ["cat", "dog", *HOSTILE]
    assert json.loads(found["tasks"]) == version["tasks"]
    assert json.loads(found["transform"]) == manifest["transform"]
    assert found["graph_sha256"] == version["files"][EXECUTABLE]["sha256"]
    assert (found["model"], found["version"], found["license"]) == (model, "2", "not stated")


def test_asked_twice_it_is_equal_bit_by_bit(http, model):
    first, second = exported(http, model, 1), exported(http, model, 1, format="onnx")
    assert first.content == second.content
    unchanged = http.get(f"/v1/models/{model}/versions/1/export", headers={"If-None-Match": first.headers["etag"]})
    assert unchanged.status_code == 304
    assert exported(http, model, 2).headers["etag"] != first.headers["etag"]


def test_what_cannot_be_exported_says_why(http, world):
    name = world.model()
    world.publish(world.claim(world.increment(name, "cat", "dog")["id"]), ["cat", "dog"], graph=None)
    assert "accrete upgrade" in problem(exported(http, name, 1), 404, "not-found")["detail"]
    problem(exported(http, name, 2), 404, "version-not-found")
    problem(exported(http, name, 1, format="pickle"), 422, "request-invalid")


def test_the_agreement_that_was_measured_is_in_the_file(http, world):
    name = world.model()
    measured = {"opset": 18, "exporter": "trace", "images": 7, "largest_difference": 2.5e-7}
    claim = world.claim(world.increment(name, "cat", "dog")["id"])
    world.publish(claim, ["cat", "dog"], rewrite={"executable": measured})
    found = entries(exported(http, name, 1).content)
    assert json.loads(found["agreement"]) == {"images": 7, "largest_difference": 2.5e-7}
    assert "7 held-out images: probabilities differ by at most 2e-07" in card_of(http, name, 1)


RUN = """
import sys
{code}
ours = {{"accrete", "api", "trainer", "storage", "losses"}} & {{name.split(".")[0] for name in sys.modules}}
assert not ours, ours
print(json.dumps(dict(zip(labels, probabilities.tolist(), strict=True))))
"""


def by_the_card(text: str, folder: Path, file: bytes) -> dict[str, float]:
    """What the code on a card says of an image file, in a process without anything of ours."""
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (folder / "image.jpg").write_bytes(file)
    command = [sys.executable, "-I", "-c", RUN.format(code=code)]
    done = subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_code_on_the_card_gives_the_answers_of_the_service(http, model, tmp_path):
    (tmp_path / f"{model}-2.onnx").write_bytes(exported(http, model, 2).content)
    for seed, size in ((1, SIZE), (2, 40)):
        file = picture(seed, size=size)
        (said,) = http.post(f"/v1/models/{model}/predictions", content=file).json()["predictions"]
        expected = {one["label"]: one["probability"] for one in said}
        assert by_the_card(card_of(http, model, 2), tmp_path, file) == pytest.approx(expected, abs=1e-6)


def test_the_code_on_the_card_of_a_grey_model(world, model, tmp_path):
    with world.database.read() as connection:
        found = models.get(connection, model)
        line = versions.lineage(connection, found, 2)
        measured = metrics.of_versions(connection, line)[-1]
    text = card(Subject(replace(found, channels=1), line, batches={}, metrics=measured, manifest={}))
    network = build("resnet32", channels=1, image_size=SIZE, task_sizes=[5]).eval()
    graph = network_onnx(network, EvaluationTransform(SIZE, 1, mean=(0.4,), std=(0.2,)))
    (tmp_path / f"{model}-2.onnx").write_bytes(exports.described(graph, {"labels": json.dumps(list("abcde"))}))
    assert sum(by_the_card(text, tmp_path, picture(1)).values()) == pytest.approx(1, abs=1e-5)


def test_a_card_has_every_section_and_says_what_it_does_not_know(http, model):
    text = card_of(http, model, 2)
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS
    assert text.count("*not stated*") == 6
    for file in ("network.onnx", "weights.safetensors", "version.json"):
        assert f"`{file}`" in text
    assert card_of(http, model, 2) == text


def test_its_front_matter_is_what_hugging_face_reads(http, model):
    front = yaml.safe_load(card_of(http, model, 2).split("---\n")[1])
    assert (front["library_name"], front["pipeline_tag"], front["license"]) == (
        "onnx",
        "image-classification",
        "unknown",
    )
    metrics = http.get(f"/v1/models/{model}/versions/2/metrics").json()
    (result,) = front["model-index"][0]["results"]
    assert [one["value"] for one in result["metrics"]] == [metrics["tag"]["average_accuracy"]]


def test_names_are_shown_as_they_are(http, model):
    text = card_of(http, model, 2)
    assert "\\*bold\\* \\| \\`code\\` \\& \\<b\\>" in text
    assert "[link](http" not in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    cells = {len(re.split(r"(?<!\\)\|", line)) for line in tables}
    assert cells <= {5, 6, 7}  # none is torn by a name


def test_the_figures_on_a_card_are_those_of_the_service(http, model):
    metrics, text = http.get(f"/v1/models/{model}/versions/2/metrics").json(), card_of(http, model, 2)
    for form in ("tag", "taw"):
        assert f"{100 * metrics[form]['average_accuracy']:.1f}" in text
    worst = min(one["recall"] for one in metrics["tag"]["per_class"].values())
    assert f"({100 * worst:.1f} %)" in text.split("## Limits")[1]


def test_the_command_line_writes_them(world, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = CliRunner()
    url = ["--url", str(world.http.base_url)]
    done = run.invoke(app, ["export", model, "1", *url])
    assert done.exit_code == 0, done.output
    assert entries((tmp_path / f"{model}-1.onnx").read_bytes())["model"] == model
    assert [path.name for path in tmp_path.iterdir()] == [f"{model}-1.onnx"]
    done = run.invoke(app, ["card", model, "1", *url])
    assert done.output.rstrip("\n") == card_of(world.http, model, 1).rstrip("\n")


def test_a_program_is_asked_for_once_and_sent_when_a_worker_has_made_it(http, world, model):
    first = exported(http, model, 1, format="pt2")
    assert (first.status_code, first.headers["retry-after"], first.content) == (202, "5", b"")
    assert first.headers["location"] == f"/v1/models/{model}/versions/1/export?format=pt2"
    assert exported(http, model, 1, format="pt2").status_code == 202
    agreement = {"images": 9, "largest_difference": 1e-7}
    with world.database.write() as connection:
        (asked,) = wishes.waiting(connection)
        version = versions.get(connection, models.get(connection, model), 1)
        file = StoredFile(world.blobs.put(b"a program"), 9)
        assert versions.add_file(connection, version, PROGRAM, file, exists=world.blobs.exists)
        wishes.succeed(connection, asked, agreement)
    for answer in (exported(http, model, 1, format="pt2"), http.get(first.headers["location"])):
        assert (answer.status_code, answer.content) == (200, b"a program")
        assert json.loads(answer.headers["accrete-agreement"]) == agreement
        assert answer.headers["content-disposition"] == f'attachment; filename="{model}-1.pt2"'
        assert answer.headers["etag"] == f'"{file.sha256}"'


def test_a_program_that_cannot_be_made_is_said(http, world, model):
    exported(http, model, 2, format="pt2")
    with world.database.write() as connection:
        (asked,) = wishes.waiting(connection)
        wishes.fail(connection, asked, "this operator is unknown")
    detail = problem(exported(http, model, 2, format="pt2"), 404, "not-found")["detail"]
    assert detail == f"Version 2 has no {PROGRAM}, because this operator is unknown. Take format=onnx."


def test_the_agreement_of_a_graph_is_in_the_answer(http, model):
    answer = exported(http, model, 1)
    assert answer.headers["accrete-agreement"] == entries(answer.content)["agreement"]
