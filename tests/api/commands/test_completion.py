"""Completion in the shell: what is offered, and that nothing else happens."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.client.client import Client
from tests.api.servers import Scripted, answer, api_without_worker

ACCRETE = Path(sys.executable).with_name("accrete")
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def api_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The real API with models, one of which has an increment."""
    folder = tmp_path_factory.mktemp("api")
    with api_without_worker(folder / "home") as url, Client(url) as client:
        for name in ("digits", "dogs", "letters"):
            client.create_model(name, image_size=8)
        yield url


def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """The command with this environment."""
    return subprocess.run(
        [ACCRETE, *arguments], env=os.environ | environment, capture_output=True, text=True, check=False, timeout=60
    )


def offers(line: str, *, url: str = NOWHERE, shell: str = "bash") -> list[str]:
    """What is offered at the end of a line, asked for as bash does."""
    words = line.split(" ")
    asked = {"_ACCRETE_COMPLETE": f"complete_{shell}", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = run(**asked, _TYPER_COMPLETE_ARGS=line, ACCRETE_URL=url)
    assert done.returncode == 0
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    "line",
    ["accrete versions d", "accrete models delete d", "accrete push --strategy lwf d", "accrete metrics --json d"],
)
def test_names_of_models_come_from_the_service(api_url: str, line: str) -> None:
    assert offers(line, url=api_url) == ["digits", "dogs"]


def test_the_address_may_be_an_option(api_url: str) -> None:
    assert offers(f"accrete versions --url {api_url} l") == ["letters"]


def test_ids_of_increments_come_from_the_service(scripted: Scripted) -> None:
    models = {"items": [{"name": "digits"}, {"name": "dogs"}], "next_cursor": None}
    of_each = [{"items": [{"id": name}], "next_cursor": None} for name in ("0198", "0203")]
    server = scripted(answer(200, models), *(answer(200, page) for page in of_each))
    assert offers("accrete cancel 01", url=server.url) == ["0198"]


def test_numbers_of_versions_and_classes_are_the_models(scripted: Scripted) -> None:
    items = {"items": [{"version": 11}, {"version": 2}], "next_cursor": None}
    server = scripted(answer(200, items), answer(200, {"classes": ["cat", "cow", "dog"]}))
    assert offers("accrete promote digits 1", url=server.url) == ["11"]
    assert offers("accrete erase class digits c", url=server.url) == ["cat", "cow"]
    assert [path for _, path, _ in server.requests] == ["/v1/models/digits/versions", "/v1/models/digits"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("accrete models create x --network resnet3", ["resnet32", "resnet34"]),
        ("accrete push m --strategy fi", ["finetune"]),
        ("accrete push m --known-classes ", ["refuse", "rehearse"]),
        ("accrete push m --promote a", ["auto"]),
        ("accrete models create x --retention a", ["all"]),
        ("accrete images add b label --split te", ["test"]),
        ("accrete promo", ["promote", "promotions"]),
    ],
)
def test_what_is_fixed_needs_no_service(line: str, expected: list[str]) -> None:
    assert offers(line) == expected
    assert all(word in " ".join(offers(line, shell="zsh")) for word in expected)


def silent(handler: object) -> None:
    time.sleep(5)


@pytest.mark.parametrize(
    "document", [{"items": [{"nothing": 1}], "next_cursor": None}, {"items": [1], "next_cursor": None}, []]
)
def test_nothing_is_offered_where_something_else_answers(scripted: Scripted, document: object) -> None:
    assert offers("accrete versions d", url=scripted(answer(200, document)).url) == []


def test_nothing_is_offered_where_the_service_is_away_refuses_or_is_slow(scripted: Scripted) -> None:
    refused = scripted(answer(401, {"detail": "No key."}, "application/problem+json"))
    assert offers("accrete versions d", url=refused.url) == []
    assert offers("accrete versions d", url="no address") == []
    assert offers("accrete versions d") == []
    started = time.monotonic()
    assert offers("accrete versions d", url=scripted(silent, silent).url) == []
    assert time.monotonic() - started < 4


def test_what_a_shell_would_evaluate_is_never_offered(scripted: Scripted) -> None:
    classes = ["cat", "café", "$(touch x)", "`touch x`", "polar bear", "a'b", 'a"b', "a;b", "*", "a\\b"]
    assert offers("accrete erase class m ", url=scripted(answer(200, {"classes": classes})).url) == ["cat", "café"]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_is_installed_and_shown(shell: str, tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    shown = run("--show-completion", shell, **environment)
    assert shown.returncode == 0
    assert "_ACCRETE_COMPLETE=complete_" in shown.stdout
    installed = run("--install-completion", shell, **environment)
    assert installed.returncode == 0, installed.stderr
    script, settings = {"bash": (".bash_completions/accrete.sh", ".bashrc"), "zsh": (".zfunc/_accrete", ".zshrc")}[
        shell
    ]
    assert (tmp_path / script).read_text().strip() == shown.stdout.strip()
    assert (tmp_path / settings).exists()
    if shutil.which(shell) is not None:
        subprocess.run([shell, "-n", str(tmp_path / script)], check=True)


def test_bash_completes_what_a_person_types(api_url: str) -> None:
    source = run("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1").stdout
    typed = 'COMP_WORDS=(accrete versions d); COMP_CWORD=2; _accrete_completion accrete; echo "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "-c", f"{source}\n{typed}"],
        env=os.environ | {"ACCRETE_URL": api_url, "PATH": f"{ACCRETE.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["digits", "dogs"], done.stderr
