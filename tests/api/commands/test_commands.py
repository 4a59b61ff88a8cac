"""Every command of `accrete` against the real API, and all of them where something is wrong around them."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner, Result

from api.commands.commandline import app
from api.commands.wording import as_commands
from tests.api.servers import ScriptedServer, answer, api_without_worker, scripted_servers
from tests.patterns import picture

ACCRETE = Path(sys.executable).with_name("accrete")
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def api_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The real API, without a worker."""
    with api_without_worker(tmp_path_factory.mktemp("api") / "home") as url:
        yield url


@pytest.fixture
def run(api_url: str) -> Run:
    """Run a command, which has to succeed."""

    def accrete(*arguments: str | Path) -> Result:
        done = CliRunner().invoke(app, list(map(str, arguments)), env={"ACCRETE_URL": api_url})
        assert done.exit_code == 0, done.output
        return done

    return accrete


@pytest.fixture
def as_json(run: Run) -> Callable[..., dict[str, object]]:
    """Run a command with --json; the document."""
    return lambda *arguments: json.loads(run(*arguments, "--json").stdout)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two classes of three images."""
    for label in ("anise", "basil"):
        for number in range(3):
            path = tmp_path / "images" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(label, number))
    return tmp_path / "images"


@pytest.fixture
def model(run: Run, request: pytest.FixtureRequest) -> str:
    """A model of this test alone."""
    name = f"m{abs(hash(request.node.name))}"
    run("models", "create", name)
    return name


def shell(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """The command as a shell runs it."""
    return subprocess.run(
        [ACCRETE, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=60,
    )


def test_an_increment_is_listed_cancelled_and_tried_again(run: Run, as_json, model: str, images: Path) -> None:
    assert "No increments yet" in run("increments", model).stdout
    pushed = as_json("push", model, images, "--no-wait")["id"]
    assert pushed in run("increments", model).stdout
    assert as_json("increments", model)["items"][0]["status"] == "queued"
    assert run("cancel", pushed).stdout == f"cancelled: accrete retry {pushed} tries it again\n"
    assert as_json("retry", pushed)["status"] == "queued"
    assert as_json("cancel", pushed)["status"] == "cancelled"


def test_what_is_to_be_expected_of_a_strategy_made_for_rehearsal_is_told(run: Run, model: str, images: Path) -> None:
    name = f"{model}-unrehearsed"
    made = run("models", "create", name, "--strategy", "lucir", "--no-memory", "--json")
    assert "warning: 'lucir' is made for rehearsal" in made.stderr
    assert len(json.loads(made.stdout)["notices"]) == 1
    assert "rehearsal" not in run("push", name, images, "--no-wait").stderr
    for label in ("anise", "basil"):
        (images / label).rename(images / f"{label} of the sea")
    pushed = run("push", name, images, "--no-wait", "--json")
    assert "warning: 'lucir' is made for rehearsal, and this increment shows no image of 'anise'" in pushed.stderr
    increment = json.loads(pushed.stdout)["id"]
    run("cancel", increment)
    assert "warning: 'lucir' is made for rehearsal" in run("retry", increment).stderr


def test_a_batch_is_collected_looked_at_and_erased(run: Run, as_json, model: str, images: Path, tmp_path: Path) -> None:
    batch = as_json("batches", "create", model)["id"]
    as_json("images", "add", batch, "anise", *sorted((images / "anise").iterdir()))
    added = as_json("images", "add", batch, "basil", *sorted((images / "basil").iterdir()))["items"]
    assert [image["filename"] for image in added] == ["0.png", "1.png", "2.png"]
    assert "anise" in run("batches", "show", batch).stdout
    assert as_json("batches", "show", batch)["images"] == 6
    run("images", "show", added[0]["id"], "--output", tmp_path / "back.png")
    assert (tmp_path / "back.png").read_bytes() == picture("basil", 0)
    assert run("images", "show", added[0]["id"]).stdout_bytes == picture("basil", 0)
    assert as_json("push", model, "--batch", batch, "--no-wait")["batch_id"] == batch
    run("erase", "image", added[0]["id"], "--yes")
    assert as_json("erase", "class", model, "anise", "--yes")["erased"] == 3


def test_an_archive_becomes_a_batch_with_what_was_left_out(run: Run, model: str, images: Path) -> None:
    for number in range(3, 10):
        (images / "anise" / f"{number}.png").write_bytes(picture("anise", number))
    (images / "anise" / "scan.tiff").write_bytes(b"II*\0")
    shown = run("batches", "create", model, images).stdout
    assert "scan.tiff" in shown
    assert f"accrete push {model} --batch" in shown


def test_nothing_is_erased_unless_it_is_confirmed(api_url: str, run: Run, as_json, model: str) -> None:
    batch = as_json("batches", "create", model)["id"]
    refused = CliRunner().invoke(app, ["erase", "batch", batch], env={"ACCRETE_URL": api_url}, input="n\n")
    assert refused.exit_code == 1
    assert as_json("batches", "show", batch)["id"] == batch
    assert run("erase", "batch", batch, "--yes").stdout == f"erased batch {batch}\n"


def test_strategies_and_the_audit_are_listed(run: Run, as_json, model: str) -> None:
    assert "lwf-bsr" in run("strategies").stdout
    assert {"name", "explanation", "recipe_schema"} <= as_json("strategies")["items"][0].keys()
    assert "/v1/models" in run("audit").stdout
    assert len(as_json("audit", "--limit", "1")["items"]) == 1


def test_the_version_and_completion_are_told() -> None:
    assert shell("--version").stdout == f"accrete {version('accrete')}\n"
    completed = shell(_ACCRETE_COMPLETE="complete_bash", COMP_WORDS="accrete incr", COMP_CWORD="1")
    assert completed.stdout.split() == ["increments"]
    assert "--install-completion" in shell("--help", COLUMNS="200").stdout


def test_every_command_prints_json_on_request() -> None:
    pending, found = [("accrete", typer.main.get_command(app))], []
    while pending:
        name, command = pending.pop()
        inner = getattr(command, "commands", {})
        pending += [(f"{name} {word}", one) for word, one in inner.items()]
        if not inner:
            options = {option for parameter in command.params for option in parameter.opts}
            found.append(name)
            assert "--json" in options, name
    assert len(found) > 25


@pytest.mark.parametrize(
    ("said", "here"),
    [
        (
            "or pass known_classes=rehearse to train on them too.",
            "or pass --known-classes rehearse to train on them too.",
        ),
        ("promote=manual", "--promote manual"),
        ("no version 3: GET /v1/models/m/versions lists them.", "no version 3: accrete versions m lists them."),
        ("create it with POST /v1/models.", "create it with accrete models create NAME."),
        ("start a new one with POST /v1/models/…/batches.", "start a new one with accrete batches create MODEL."),
        ("with POST /v1/batches/{id}/images?label=train", "with accrete images add {id} LABEL FILES"),
        ("GET /v1/strategies lists them", "accrete strategies lists them"),
    ],
)
def test_messages_name_options_and_commands(said: str, here: str) -> None:
    assert as_commands(said) == here


def test_a_refusal_of_the_service_names_the_command_to_use(api_url: str) -> None:
    refused = CliRunner().invoke(app, ["versions", "nowhere"], env={"ACCRETE_URL": api_url})
    assert refused.exit_code == 1
    assert "accrete models create NAME" in refused.stderr
    assert "/v1/" not in refused.stderr


@pytest.fixture
def scripted() -> Iterator[Callable[..., ScriptedServer]]:
    """Start scripted servers."""
    with scripted_servers() as start:
        yield start


@pytest.mark.parametrize(
    ("body", "kind"), [(b"<html>hello</html>", "text/html"), (b"[]", "application/json"), (b"{}", "application/json")]
)
def test_an_address_of_something_else_is_told(body: bytes, kind: str, scripted: Callable[..., ScriptedServer]) -> None:
    server = scripted(answer(200, body, kind))
    done = shell("models", ACCRETE_URL=server.url)
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr == f"error: {server.url} does not answer as an Accrete service does: is the address right "
        "(ACCRETE_URL, --url)?\n"
    )


def test_an_error_page_that_claims_to_be_a_problem_is_told(scripted: Callable[..., ScriptedServer]) -> None:
    server = scripted(answer(502, b"oops", "application/problem+json"))
    done = shell("models", ACCRETE_URL=server.url)
    assert done.returncode == 1
    assert "answered 502" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "url", ["http://no-such-host.invalid", "http://127.0.0.1:9", "http://[::1", "http://h:99999", "x"]
)
def test_what_cannot_be_reached_is_one_line(url: str) -> None:
    done = shell("models", ACCRETE_URL=url)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_a_file_system_that_refuses_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = shell("up", "--home", str(tmp_path / "file" / "home"))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "Not a directory" in done.stderr


def test_a_disk_that_is_full_is_one_line(tmp_path: Path, scripted: Callable[..., ScriptedServer]) -> None:
    model: dict[str, object] = {"version": {}, "files": {"weights.safetensors": {}}}
    server = scripted(answer(200, model), answer(200, model), answer(200, bytes(100_000), "application/octet-stream"))
    limited = f"ulimit -f 8; trap '' XFSZ; exec '{ACCRETE}' download m 1 '{tmp_path / 'm'}'"
    done = subprocess.run(
        ["bash", "-c", limited],
        env=os.environ | {"ACCRETE_URL": server.url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "File too large" in done.stderr


def test_a_reader_that_goes_away_leaves_no_traceback(scripted: Callable[..., ScriptedServer]) -> None:
    server = scripted(answer(200, {"items": [], "next_cursor": None}))
    with subprocess.Popen(
        [ACCRETE, "models"],
        env=os.environ | {"ACCRETE_URL": server.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_ctrl_c_ends_with_130(scripted: Callable[..., ScriptedServer]) -> None:
    server = scripted()
    arrived = io.StringIO()

    def wait(handler: object) -> None:
        process.send_signal(signal.SIGINT)
        arrived.write("asked")
        process.wait()

    server = scripted(wait)
    process = subprocess.Popen(
        [ACCRETE, "models"], env=os.environ | {"ACCRETE_URL": server.url}, stderr=subprocess.PIPE, text=True
    )
    _, complaint = process.communicate(timeout=60)
    assert arrived.getvalue() == "asked"
    assert (process.returncode, complaint) == (130, "")


@pytest.mark.parametrize(
    "environment", [{"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "cp437"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}]
)
def test_a_terminal_that_is_not_utf8_gets_what_it_can_show(
    environment: dict[str, str], scripted: Callable[..., ScriptedServer]
) -> None:
    environment = environment | {"PYTHONCOERCECLOCALE": "0"}
    label = "ł – 犬 😀"
    model = {"name": label, "network": "n", "channels": 3, "image_size": 8, "strategy": "s", "classes": [label]}
    page = {"items": [{**model, "current": None, "head": None}], "next_cursor": None}
    server = scripted(answer(200, page), answer(200, page))
    plain = shell("models", ACCRETE_URL=server.url, **environment)
    assert plain.returncode == 0, plain.stderr
    assert "\\u0142 - \\u72ac \\U0001f600" in plain.stdout
    assert "3x8x8" in plain.stdout
    document = json.loads(shell("models", "--json", ACCRETE_URL=server.url, **environment).stdout)
    assert document["items"][0]["name"] == label
    assert shell("--help", **environment).returncode == 0
