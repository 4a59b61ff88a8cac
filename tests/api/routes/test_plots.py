"""Plots over HTTP, by the client and by the command line."""

import io
import warnings
from concurrent.futures import ThreadPoolExecutor
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from api.client.client import Client
from api.commands.commandline import app
from api.views.plots import BLUE, COLUMN, DOTS_PER_INCH, ORANGE, VERMILION, Material, Plot, drawn
from storage.history.curves import curves
from tests.api.worlds import problem
from trainer.evaluation.metrics import document, measure

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def model(shared_world):
    """A model of two versions, one of whose labels would be mathematics to matplotlib."""
    name = shared_world.model()
    shared_world.version(name, "cat", "$dog$")
    shared_world.version(name, "größe", "emu")
    return name


def asked(http, model, form, **query):
    """The answer for a plot."""
    return http.get(f"/v1/models/{model}/metrics.{form}", params=query)


def material(tasks: int, classes: int, *, measured: bool = True) -> Material:
    """What a line of versions would be drawn from."""
    documents: list[dict[str, object]] = []
    rng = np.random.default_rng(tasks)
    for task in range(tasks):
        known = (task + 1) * classes
        targets = np.repeat(np.arange(known), 4 if measured else 0)
        logits = rng.normal(size=(len(targets), known))
        found = measure(logits=logits, targets=targets, task_sizes=[classes] * (task + 1))
        documents.append(document(documents, found, labels=[f"class {n}" for n in range(known)]))
    labels = [f"class {n}" for n in range(tasks * classes)]
    before = documents[-2] if tasks > 1 else None
    return Material("m", range(1, tasks + 1), curves(documents), labels, documents[-1], before)


@pytest.mark.parametrize("plot", list(Plot))
def test_every_plot_comes_as_png_and_as_svg(http, model, plot):
    png = asked(http, model, "png", plot=plot)
    assert png.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(png.content)) as image:
        image.load()
        width = image.width / DOTS_PER_INCH
    assert width == pytest.approx(2 * COLUMN + 0.3 if plot is Plot.OVERVIEW else COLUMN, abs=0.01)
    svg = asked(http, model, "svg", plot=plot)
    assert svg.headers["content-type"] == "image/svg+xml"
    assert ET.fromstring(svg.text).tag == f"{SVG}svg"
    assert asked(http, model, "png", plot=plot).content == png.content
    assert asked(http, model, "svg", plot=plot).content == svg.content


def test_an_unchanged_plot_is_not_drawn_again(http, model, monkeypatch):
    tags = {asked(http, model, form, plot=plot).headers["etag"] for form in ("png", "svg") for plot in Plot}
    assert len(tags) == 2 * len(Plot)
    tag = asked(http, model, "png").headers["etag"]
    assert asked(http, model, "png", version=1).headers["etag"] != tag
    monkeypatch.setattr("api.routes.plots.drawn", lambda *_: pytest.fail("drawn again"))
    answer = http.get(f"/v1/models/{model}/metrics.png", headers={"If-None-Match": tag})
    assert (answer.status_code, answer.content) == (304, b"")


def test_a_plot_that_there_is_not(http, world, model):
    problem(asked(http, model, "png", plot="pie"), 422, "request-invalid")
    problem(asked(http, model, "svg", version=9), 404, "version-not-found")
    problem(asked(http, "nobody", "svg"), 404, "model-not-found")
    problem(asked(http, world.model(), "svg", plot="classes"), 409, "no-version-yet")


@pytest.mark.parametrize("plot", list(Plot))
@pytest.mark.parametrize(("tasks", "classes"), [(1, 1), (1, 2), (3, 2), (2, 40)])
@pytest.mark.parametrize("measured", [True, False])
def test_every_size_of_a_model_is_drawn_without_a_warning(plot, tasks, classes, measured):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert drawn(plot, material(tasks, classes, measured=measured), "png").startswith(b"\x89PNG")


def test_plots_are_drawn_by_several_threads_at_once():
    subject = material(3, 3)
    alone = {plot: drawn(plot, subject, "svg") for plot in Plot}
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda plot: (plot, drawn(plot, subject, "svg")), list(Plot) * 4))
    assert all(content == alone[plot] for plot, content in together)


def test_colours_differ_for_people_without_one_kind_of_cone():
    """By the simulation of Machado et al. (2009), at full severity, in linear RGB."""
    simulated = {
        "protanopia": [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ],
        "deuteranopia": [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.01182, 0.04294, 0.968881],
        ],
        "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
    }
    colours = [[int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)] for colour in (BLUE, ORANGE, VERMILION)]
    linear = np.power(np.array(colours), 2.2)
    for name, matrix in simulated.items():
        seen = np.clip(linear @ np.array(matrix).T, 0, 1) ** (1 / 2.2)
        for one, other in ((0, 1), (0, 2)):  # those that appear together
            assert np.abs(seen[one] - seen[other]).max() > 0.2, name


def test_the_client_and_the_command_line_write_them(world, model, tmp_path):
    url = str(world.http.base_url)
    with Client(url) as client:
        client.plot(model, tmp_path / "a.SVG", plot="classes", version=2)
        assert (tmp_path / "a.SVG").read_bytes() == asked(world.http, model, "svg", plot="classes", version=2).content
        with pytest.raises(ValueError, match=r"b\.pdf: plots are PNG or SVG"):
            client.plot(model, tmp_path / "b.pdf")
    run = CliRunner()
    done = run.invoke(app, ["metrics", model, "--plot", str(tmp_path / "c.png"), "--shows", "confusion", "--url", url])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "c.png").read_bytes() == asked(world.http, model, "png", plot="confusion").content
    done = run.invoke(app, ["metrics", model, "--plot", str(tmp_path / "c.pdf"), "--url", url])
    assert done.exit_code == 2
    assert "PNG or SVG" in done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.SVG", "c.png"]
