"""The dashboard as a person uses it, in a browser."""

from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.patterns import QUICK, SIZE, picture, unseen

pytestmark = pytest.mark.flow

PAGES = ("", "/teach", "/compare", "/try", "/history")


def folder_of(place: Path, *labels: str, broken: str | None = None) -> Path:
    """A folder of class folders; in one of them may be a file that is no image."""
    for label in labels:
        (place / label).mkdir(parents=True)
        for number in range(30):
            (place / label / f"{number}.png").write_bytes(picture(label, number))
    if broken is not None:
        (place / broken / "broken.png").write_bytes(b"no picture")
    return place


def taught(page: Page, dashboard: str, model: str, folder: Path) -> None:
    """Choose a folder on the page to teach, look at what was found, and wait for the version."""
    page.goto(f"{dashboard}/models/{model}/teach")
    page.locator("input[webkitdirectory]").set_input_files(folder)
    expect(page.get_by_text("Found:")).to_be_visible()
    page.get_by_role("button", name="Teach", exact=True).click()
    expect(page.get_by_text("is there")).to_be_visible()


@pytest.fixture(scope="module")
def grown(api: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Page, str], str]:
    """A model of two versions that was taught in the browser, once; its name."""
    made: list[str] = []

    def grow(page: Page, dashboard: str) -> str:
        if not made:
            name = f"model-{uuid4().hex[:8]}"
            asked = {"name": name, "image_size": SIZE, "recipe": QUICK, "memory": {"per_class": 10}}
            assert httpx.post(f"{api}/v1/models", json=asked).status_code == 201
            folder = tmp_path_factory.mktemp("images")
            taught(page, dashboard, name, folder_of(folder / "first", "anise", "basil", "chive"))
            taught(page, dashboard, name, folder_of(folder / "second", "dill", "fennel"))
            made.append(name)
        return made[0]

    return grow


def test_a_person_makes_a_model_teaches_compares_tries_goes_back_and_renames(
    page: Page, dashboard: str, api: str, tmp_path: Path
) -> None:
    page.goto(dashboard)
    page.get_by_role("button", name="New model").click()
    name = f"model-{uuid4().hex[:8]}"
    page.get_by_label("Name").fill(name)
    page.get_by_label("Pixels, height and width").fill(str(SIZE))
    page.get_by_role("button", name="Make it").click()
    expect(page.get_by_text("Drop folders here, one for each class")).to_be_visible()
    assert httpx.patch(f"{api}/v1/models/{name}", json={"recipe": QUICK}).status_code == 200

    first = folder_of(tmp_path / "first", "anise", "basil", "chive", broken="basil")
    page.locator("input[webkitdirectory]").set_input_files(first)
    expect(
        page.get_by_text("Found: 91 images of 3 classes")
    ).to_be_visible()  # that one is none is seen when it is read
    page.get_by_role("button", name="Teach", exact=True).click()
    expect(page.get_by_text("Version 1 is there")).to_be_visible()

    page.get_by_role("link", name="Teach more").click()
    page.locator("input[webkitdirectory]").set_input_files(folder_of(tmp_path / "second", "dill", "fennel"))
    page.get_by_text("wait for me").or_(page.get_by_label("The new version")).first.click()
    page.get_by_role("option", name="wait for me").click()
    page.get_by_role("button", name="Teach", exact=True).click()
    expect(page.get_by_text("Version 2 is there")).to_be_visible()
    expect(page.get_by_text("It waits: promote=manual.")).to_be_visible()
    expect(page.get_by_text("Classes, most lost first")).to_be_visible()

    page.get_by_role("link", name="Compare").click()
    expect(page.get_by_role("heading", name="Classes, most lost first")).to_be_visible()

    page.get_by_role("link", name="Try", exact=True).click()
    (tmp_path / "new.png").write_bytes(unseen("anise", 1)[0])
    page.locator("input[type=file]").set_input_files(tmp_path / "new.png")
    expect(page.get_by_role("heading", name="Version 1")).to_be_visible()

    page.get_by_role("link", name="History").click()
    for number, reason in ((2, "seen and good"), (1, "on second thoughts")):
        row = page.locator("tr", has=page.get_by_role("cell", name=f"v{number}", exact=True))
        row.get_by_role("button", name="Put into service").click()
        page.get_by_label("Why (for the record)").fill(reason)
        page.get_by_role("button", name="Put it into service").click()
        expect(page.get_by_role("cell", name=reason)).to_be_visible()
    assert httpx.get(f"{api}/v1/models/{name}/current").json()["version"] == 1

    page.get_by_role("link", name="Overview").click()
    row = page.locator("tr", has=page.get_by_role("cell", name="basil", exact=True))
    row.get_by_role("button", name="Rename").click()
    page.get_by_role("textbox", name="Name").fill("sweet basil")
    page.get_by_role("button", name="Rename it").click()
    expect(page.get_by_role("cell", name="sweet basil").first).to_be_visible()
    assert "sweet basil" in httpx.get(f"{api}/v1/models/{name}").json()["classes"]


@pytest.mark.parametrize("page", [(1280, "dark"), (390, "light"), (390, "dark")], indirect=True, ids=str)
def test_every_page_fits_the_screen_and_has_no_serious_fault_of_access(
    page: Page, dashboard: str, grown: Callable[[Page, str], str]
) -> None:
    name = grown(page, dashboard)
    for path in ("/", "/key", *(f"/models/{name}{part}" for part in PAGES)):
        page.goto(dashboard + path)
        expect(page.get_by_text("Loading …")).to_have_count(0)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        found = Axe().run(page).response["violations"]
        assert [(one["id"], path) for one in found if one["impact"] in {"serious", "critical"}] == []


def test_what_is_refused_is_said_in_words(page: Page, dashboard: str, tmp_path: Path) -> None:
    page.goto(f"{dashboard}/models/nobody")
    expect(page.get_by_text("There is no model named 'nobody'")).to_be_visible()


def test_an_upload_that_is_refused_says_why_and_can_be_tried_again(
    page: Page, dashboard: str, grown: Callable[[Page, str], str], tmp_path: Path
) -> None:
    name = grown(page, dashboard)
    page.goto(f"{dashboard}/models/{name}/teach")
    (tmp_path / "broken.zip").write_bytes(b"no archive")
    page.locator("input[accept]").set_input_files(tmp_path / "broken.zip")
    expect(page.get_by_role("alert")).to_be_visible()
    expect(page.get_by_text("Choose a folder")).to_be_visible()
