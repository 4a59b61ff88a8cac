"""The lines of the README and of two guides, one after another, against a running service."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flow.conftest import Service

pytestmark = [pytest.mark.flow, pytest.mark.timeout(1800)]  # some minutes, but on a machine that has much to do

ROOT = Path(__file__).parents[2]
# A fifth of the digits is enough to run every line.
MAKING = ".venv/bin/python -m api.demo.images digits"
THINNING = "find digits -name '0[4-9]*.png' -delete -o -name '1*.png' -delete"


def run_lines(page: str, url: str, folder: Path, **environment: str) -> str:
    """Run every line of a page's blocks for a shell; what they print."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line]
    assert len(lines) >= 10
    script = "\n".join(lines).replace(MAKING, f"{MAKING} && {THINNING}")
    script = script.replace("localhost:8000", url).replace(".venv/bin/", f"{Path(sys.executable).parent}/")
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script],
        cwd=folder,
        env=os.environ | {"ACCRETE_URL": url} | environment,
        capture_output=True,
        text=True,
        timeout=1700,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def assert_it_went_back(printed: str) -> None:
    assert '"version":1,"previous":2' in printed.replace(" ", "")


def test_every_line_of_the_readme_runs(service: Service, tmp_path: Path) -> None:
    assert_it_went_back(run_lines("README.md", service.url, tmp_path))


def test_every_line_of_the_guide_to_teaching_by_hand_runs(service: Service, tmp_path: Path) -> None:
    printed = run_lines("docs/teaching.md", service.url, tmp_path)
    assert "version 2 is not in service: --promote manual" in printed
    assert "shown for practice" in printed


def test_every_line_of_the_readme_and_the_walk_through_runs_with_a_key_to_train(tmp_path: Path) -> None:
    """Curl reads the key from a file of its own, the command line from the environment; no line is another one."""
    (tmp_path / "admin.key").write_text("0123456789abcdef" * 4)
    settings = {"ACCRETE_HOME": str(tmp_path / "home"), "ACCRETE_ADMIN_KEY_FILE": str(tmp_path / "admin.key")}
    service = Service(tmp_path / "home", settings)
    service.start()
    try:
        command = [
            str(Path(sys.executable).with_name("accrete")),
            "keys",
            "create",
            "walker",
            "--scope",
            "train",
            "--json",
        ]
        made = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=True)
        key = json.loads(made.stdout)["key"]
        (tmp_path / ".curlrc").write_text(f'header = "Authorization: Bearer {key}"\n')
        keys = {"CURL_HOME": str(tmp_path), "ACCRETE_API_KEY": key}
        assert_it_went_back(run_lines("README.md", service.url, tmp_path, **keys))
        assert_it_went_back(run_lines("docs/walkthrough.md", service.url, tmp_path, **keys))
        assert (tmp_path / "metrics.png").read_bytes().startswith(b"\x89PNG")
    finally:
        assert service.stop() == 0


def test_every_link_of_the_readme_leads_somewhere() -> None:
    linked = re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / "README.md").read_text())
    assert len(linked) > 10
    assert [path for path in linked if not (ROOT / path).exists()] == []
