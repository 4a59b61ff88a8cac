"""`accrete`: what it prints, how it fails, and that it starts fast."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from api.commands.commandline import app
from api.commands.tables import table
from tests.api.servers import Scripted, answer, event, stream


def accrete(*arguments: str, url: str = "http://127.0.0.1:9") -> Result:
    """Run a command against a service."""
    return CliRunner().invoke(app, list(arguments), env={"ACCRETE_URL": url})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of two images."""
    for shade, name in enumerate(["cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"]):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 60 * shade).save(path)
    return tmp_path / "images"


def increment(status: str, **fields: Any) -> dict[str, Any]:
    """An increment as the service tells it."""
    unknown = dict.fromkeys(["version", "promoted", "note", "error"])
    usual: dict[str, Any] = {"id": "7", "status": status, "rejects": [], "reject_count": 0, **unknown}
    return usual | fields


EPOCH = event(3, "epoch", epoch=1, epochs=2, loss=0.25, images_per_second=1000.4, seconds=1.0)
SUCCESS = increment(
    "succeeded",
    version=4,
    promoted=False,
    note="it is not the current version's child",
    rejects=[{"file": "x", "reason": "y"}],
    reject_count=1234,
)
COURSE = [
    event(1, "status", **increment("queued")),
    event(2, "stage", stage="training", attempt=1),
    event(None, "progress", stage="training", epoch=1, epochs=2, step=1, steps=2, loss=0.5),
    EPOCH,
]


def test_what_a_model_does_from_now_on_is_changed(api_url: str) -> None:
    accrete("models", "create", "digits", "--channels", "1", "--retention", "all", url=api_url)
    options = ["--strategy", "finetune", "--recipe", '{"epochs": 2}', "--memory-total", "50"]
    told = accrete("models", "change", "digits", *options, url=api_url)
    assert told.exit_code == 0, told.output
    assert "changed strategy, recipe, memory of digits" in told.stdout
    model = json.loads(accrete("models", "change", "digits", "--no-memory", "--json", url=api_url).stdout)
    assert (model["strategy"], model["recipe"]["epochs"], model["memory"]) == ("finetune", 2, None)
    assert model["retention"] == "all"
    unchanged = accrete("models", "change", "digits", url=api_url)
    assert unchanged.exit_code == 1
    assert "name what to change" in unchanged.output


def test_models_are_created_listed_and_deleted(api_url: str) -> None:
    assert accrete("models", url=api_url).stdout == "No models yet: accrete models create NAME\n"
    made = accrete(
        "models", "create", "digits", "--channels", "1", "--recipe", '{"epochs": 2}', "--no-memory", url=api_url
    )
    assert made.stdout == "created digits: accrete push digits FOLDER\n"
    rows = accrete("models", url=api_url).stdout.splitlines()
    assert rows[0].split() == ["model", "network", "pixels", "strategy", "classes", "current", "head"]
    assert rows[2].split() == ["digits", "resnet32", "1×32×32", "lwf-bsr", "0", "–", "–"]
    [listed] = json.loads(accrete("models", "--json", url=api_url).stdout)["items"]
    assert (listed["memory"], listed["recipe"]["epochs"]) == (None, 2)
    assert json.loads(accrete("models", "delete", "digits", "--yes", "--json", url=api_url).stdout) == {
        "deleted": "digits"
    }
    assert json.loads(accrete("models", "--json", url=api_url).stdout) == {"items": []}


def test_deleting_asks_first(api_url: str) -> None:
    accrete("models", "create", "digits", url=api_url)
    assert accrete("models", "delete", "digits", url=api_url).exit_code == 1
    assert len(json.loads(accrete("models", "--json", url=api_url).stdout)["items"]) == 1


def test_push_creates_the_model_and_queues_an_increment(api_url: str, folder: Path) -> None:
    refused = accrete("push", "pets", str(folder), "--no-wait", url=api_url)
    assert refused.exit_code == 1
    assert refused.stderr.startswith("4 images of 2 classes, 0.3 kB: cat 2, dog 2\nerror: ")
    assert "pets" in refused.stderr
    assert refused.stderr.count("\n") == 2
    queued = json.loads(accrete("push", "pets", str(folder), "--create", "--no-wait", "--json", url=api_url).stdout)
    assert (queued["model"], queued["status"]) == ("pets", "queued")


def test_watching_prints_a_line_a_step(scripted: Scripted) -> None:
    server = scripted(stream(*COURSE, event(4, "status", **SUCCESS), complete=True))
    watched = accrete("watch", "7", url=server.url)
    assert watched.stdout.splitlines() == [
        "training",
        "epoch 1/2, loss 0.2500, 1000 images/s",
        "version 4 is not in service: it is not the current version's child; 1,234 files were left out, such as x (y)",
    ]
    assert watched.exit_code == 0


def test_watching_as_json_prints_every_event_on_a_line_of_its_own(scripted: Scripted) -> None:
    server = scripted(stream(*COURSE, event(4, "status", **SUCCESS), complete=True))
    lines = [json.loads(line) for line in accrete("watch", "7", "--json", url=server.url).stdout.splitlines()]
    assert [line["event"] for line in lines] == ["status", "stage", "progress", "epoch", "status"]
    assert lines[-1] == {"event": "status", "id": "4", "data": SUCCESS}


def test_pushing_an_increment_that_fails_is_an_error_with_its_reason(scripted: Scripted, folder: Path) -> None:
    failed = increment("failed", error="the loss is not finite")
    server = scripted(answer(202, increment("queued")), stream(*COURSE, event(4, "status", **failed), complete=True))
    pushed = accrete("push", "m", str(folder), url=server.url)
    assert pushed.exit_code == 1
    assert pushed.stdout.startswith("uploaded 0.9 kB\ntraining\n")
    assert pushed.stderr.endswith("\nerror: increment 7 failed: the loss is not finite\n")


def test_a_terminal_gets_progress_bars(scripted: Scripted) -> None:
    server = scripted(stream(*COURSE, event(4, "status", **SUCCESS), complete=True, pause_seconds=0.15))
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "api.commands.commandline", "watch", "7"]
    environment = {**os.environ, "ACCRETE_URL": server.url, "TERM": "xterm", "COLUMNS": "150"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        seen = b""
        try:
            while piece := os.read(ours, 4096):
                seen += piece
        except OSError:  # EIO: the other end of the terminal is closed
            os.close(ours)
    assert process.returncode == 0
    assert b"\x1b[" in seen
    assert "━" in seen.decode()
    assert b"version 4 is not in service" in seen


def test_predictions_name_the_file_and_the_classes(scripted: Scripted, folder: Path) -> None:
    ranked = [{"label": "cat", "probability": 0.875}, {"label": "dog", "probability": 0.125}]
    reply = {"id": None, "model": "m", "version": 2, "predictions": [ranked, ranked]}
    server = scripted(answer(200, reply), answer(200, reply))
    files = [str(folder / "cat/1.png"), str(folder / "dog/1.png")]
    assert accrete("predict", "m", *files, url=server.url).stdout.splitlines() == [
        f"{file}  cat 87.5 %  dog 12.5 %" for file in files
    ]
    told = json.loads(accrete("predict", "m", *files, "--json", "--top-k", "2", url=server.url).stdout)
    assert told["items"][1] == {"file": files[1], "version": 2, "id": None, "predictions": ranked}
    assert server.requests[1][1] == "/v1/models/m/predictions?top_k=2"


def test_versions_show_what_each_learned_and_forgot(scripted: Scripted) -> None:
    version = {
        "version": 2,
        "classes": list("abcd"),
        "tasks": [["a", "b"], ["c", "d"]],
        "summary": {
            "tag": {"average_accuracy": 0.912, "forgetting": 0.05},
            "taw": {"average_accuracy": None, "forgetting": None},
        },
        "seconds": {"training": 2.5, "evaluating": 0.5},
        "current": True,
        "head": False,
    }
    server = scripted(answer(200, {"items": [version], "next_cursor": None}))
    row = accrete("versions", "m", url=server.url).stdout.splitlines()[2]
    assert row.split("  ")[-1] == "current"
    assert row.split() == ["2", "4", "c,", "d", "91.2", "%", "–", "5.0", "%", "3.0", "s", "current"]


def test_metrics_show_both_lower_triangular_matrices(scripted: Scripted) -> None:
    curves = {
        "matrix": [[1.0], [0.5, None]],
        "average_accuracy": [1.0, 0.5],
        "average_incremental_accuracy": [1.0, 0.75],
        "forgetting": [None, 0.5],
        "backward_transfer": [None, -0.5],
    }
    document = {"versions": [1, 3], "tasks": [["a"], ["b"]], "tag": curves, "taw": curves}
    server = scripted(answer(200, document), answer(200, document))
    lines = accrete("metrics", "m", url=server.url).stdout.splitlines()
    assert lines[0] == "Task-agnostic (TAg)"
    assert lines[3].split() == ["1", "100.0", "%", "100.0", "%", "–", "–"]
    assert lines[4].split() == ["3", "50.0", "%", "–", "50.0", "%", "50.0", "%", "-50.0", "%"]
    assert lines[-1] == "task 2: b"
    assert json.loads(accrete("metrics", "m", "--json", "--version", "3", url=server.url).stdout) == document
    assert server.requests[1][1] == "/v1/models/m/metrics?version=3"


def test_promotion_and_rollback_tell_the_version_in_service(scripted: Scripted) -> None:
    one, two = ({"model": "m", "version": number, "previous": 3 - number} for number in (1, 2))
    server = scripted(answer(200, two), answer(200, two), answer(200, one))
    assert accrete("promote", "m", "2", url=server.url).stdout == "version 2 of m is in service\n"
    assert accrete("rollback", "m", url=server.url).stdout == "version 1 of m is in service again\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["models"], "cannot reach http://127.0.0.1:9"),
        (["models", "create", "m", "--recipe", "epochs=3"], "--recipe is no JSON"),
        (["models", "create", "m", "--recipe", "[1]"], "--recipe must be a JSON object"),
        (["models", "create", "m", "--no-memory", "--memory-total", "5"], "give only one of --memory-per-class"),
        (["push", "m", "/nowhere"], "/nowhere does not exist"),
        (["models", "--url", "nonsense"], "'nonsense' is no address of a service"),
        (["up", "--port", "70000"], "ACCRETE_PORT: Input should be less than or equal to 65535"),
    ],
)
def test_errors_are_one_line_and_exit_code_one(arguments: list[str], message: str) -> None:
    failed = accrete(*arguments)
    assert (failed.exit_code, failed.stdout) == (1, "")
    assert failed.stderr.startswith(f"error: {message}")
    assert failed.stderr.count("\n") == 1


def test_help_needs_none_of_the_heavy_libraries() -> None:
    program = "import sys; import api.commands.commandline; print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    for heavy in ("torch", "httpx", "sqlalchemy", "celery", "pydantic", "fastapi", "numpy"):
        assert f"'{heavy}'" not in loaded


def test_columns_are_aligned_figures_to_the_right() -> None:
    assert table(["name", "share"], [["a", "5.0 %"], ["long name", "100.0 %"]]).splitlines() == [
        "name         share",
        "─────────  ───────",
        "a            5.0 %",
        "long name  100.0 %",
    ]
