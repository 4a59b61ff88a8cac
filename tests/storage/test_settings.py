"""The settings and the page that lists them."""

import re
from pathlib import Path

import pytest
from sqlalchemy import make_url

from storage.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_lists_every_setting_with_its_default_and_meaning() -> None:
    listed = re.findall(r"^\| `(ACCRETE_\w+)` \| (\S+) \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    fields = Settings.model_fields.items()
    expected = [
        (f"ACCRETE_{name.upper()}", "–" if field.default is None else f"`{field.default}`", field.description)
        for name, field in fields
    ]
    assert listed == expected


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ACCRETE_HOME", str(tmp_path))
    monkeypatch.setenv("ACCRETE_MAX_BAD_SHARE", "0.25")
    settings = Settings()
    assert settings.max_bad_share == 0.25
    assert settings.database == make_url(f"sqlite:///{tmp_path}/accrete.db")
    assert settings.blobs == str(tmp_path / "blobs")
    assert settings.scratch == tmp_path / "scratch"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_a_postgresql_url_gets_the_driver_that_is_installed(scheme: str) -> None:
    assert Settings(database_url=f"{scheme}://me@there/db").database == make_url("postgresql+psycopg://me@there/db")


@pytest.mark.parametrize(
    "origin", ["tool.example.org", "https://tool.example.org/page", "https://*.org", "null", "a b"]
)
def test_what_is_no_origin_is_refused_at_the_start(origin: str) -> None:
    with pytest.raises(ValueError, match="ACCRETE_CORS_ORIGINS"):
        Settings(cors_origins=f"https://other.example, {origin}")


def test_origins_are_listed_by_commas() -> None:
    named = Settings(cors_origins="https://a.example:8443/, http://[::1]:5173 ,*,")
    assert named.origins == ("https://a.example:8443", "http://[::1]:5173", "*")
    assert Settings(cors_origins="").origins == Settings().origins == ()


def test_a_worker_without_a_broker_says_how_to_get_one() -> None:
    with pytest.raises(ValueError, match="accrete up"):
        _ = Settings(redis_url=None).broker
    assert Settings(redis_url="unix:///run/redis.sock").broker == "redis+socket:///run/redis.sock"
