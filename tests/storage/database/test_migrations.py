"""Migrations: any database comes to the present tables, once, whoever else asks at the same time."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect

import storage.migrations
from storage.database.engine import Database
from storage.database.tables import answers, metadata
from storage.domain import PromotionRecord
from storage.history import models, promotions
from storage.material import batches, images, rejects
from storage.migrations import configuration, upgrade
from storage.work import increments
from tests.storage.worlds import World

REBUILD = """
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{head}"


def upgrade():
    with op.batch_alter_table("models", recreate="auto") as table:
        table.alter_column("network", type_=sa.String(200))


def downgrade():
    with op.batch_alter_table("models", recreate="auto") as table:
        table.alter_column("network", type_=sa.String(100))
"""


@pytest.fixture
def empty(empty_database_url: str) -> Iterator[Database]:
    """A database without a table."""
    database = Database(empty_database_url)
    yield database
    database.close()


def tables(database: Database) -> set[str]:
    with database.read() as connection:
        return set(inspect(connection).get_table_names())


def differences(database: Database) -> list[object]:
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, metadata))


def revision(database: Database) -> str | None:
    with database.read() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def head() -> str:
    found = ScriptDirectory.from_config(configuration("sqlite://")).get_current_head()
    assert found is not None
    return found


def test_an_empty_database_comes_to_the_tables_the_code_knows(empty: Database):
    assert tables(empty) == set()
    assert len(differences(empty)) >= len(metadata.tables)
    upgrade(empty.url)
    assert differences(empty) == []
    assert tables(empty) == {*metadata.tables, "alembic_version"}
    assert revision(empty) == head()


def test_an_upgrade_of_what_is_up_to_date_changes_nothing(world: World):
    world.learn(world.create(), "a", "b", kept=1)
    before = world.rows()
    upgrade(world.database.url)
    assert world.rows() == before
    assert differences(world.database) == []


def test_everything_can_be_taken_back_and_brought_again(empty: Database):
    upgrade(empty.url)
    command.downgrade(configuration(empty.url), "base")
    assert tables(empty) == {"alembic_version"}
    assert revision(empty) is None
    upgrade(empty.url)
    assert differences(empty) == []


def test_several_processes_may_ask_at_once(empty: Database, tmp_path: Path):
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ACCRETE_")}
    settings = {"ACCRETE_DATABASE_URL": str(empty.url), "ACCRETE_HOME": str(tmp_path / "home")}
    asked = [
        subprocess.Popen([sys.executable, "-m", "storage.migrations"], env=inherited | settings, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    complaints = [process.communicate(timeout=60)[1].decode() for process in asked]
    assert [process.returncode for process in asked] == [0] * 3, complaints
    assert differences(empty) == []


MOMENT = "2026-01-01 00:00:00+00:00"
BAD_FILES = [{"file": f"basil/größe {number}.tif", "reason": "is TIFF"} for number in range(250)]
FIRST_RELEASE = (
    "INSERT INTO models (id, name, network, image_size, channels, strategy, recipe, retention, created_at, "
    "current_revision, last_version) "
    f"VALUES ('m', 'plants', 'resnet32', 32, 3, 'lwf', '{{}}', 'all', '{MOMENT}', 0, 0)",
    "INSERT INTO batches (id, model_id, status, classes, rejects, created_at) "
    f"VALUES ('b', 'm', 'ingested', '[]', '{json.dumps(BAD_FILES)}', '{MOMENT}')",
    "INSERT INTO batches (id, model_id, status, classes, rejects, created_at) "
    f"VALUES ('none', 'm', 'ingested', '[]', '[]', '{MOMENT}')",
    "INSERT INTO images (id, batch_id, label, filename, digest, size, split) "
    f"VALUES ('p', 'b', 'basil', 'basil/1.png', '{'0' * 64}', 7, 'train')",
    "INSERT INTO increments (id, model_id, batch_id, status, strategy, recipe, promote, known_classes, "
    "attempt, crashes, cancel_requested, created_at) "
    f"VALUES ('i', 'm', 'b', 'queued', 'lwf', '{{}}', 'auto', 'refuse', 3, 2, false, '{MOMENT}')",
)


def test_what_an_earlier_release_wrote_is_brought_forward(empty: Database):
    upgrade(empty.url, "0001")
    with empty.write() as connection:
        for statement in FIRST_RELEASE:
            connection.exec_driver_sql(statement)
    upgrade(empty.url)
    assert differences(empty) == []
    with empty.read() as connection:
        increment = increments.get(connection, "i")
        (image,) = images.of_batch(connection, "b")
        bad = rejects.page(connection, "b", limit=1000, cursor=None).items
        counted = [batches.get(connection, name).reject_count for name in ("b", "none")]
    assert (increment.attempt, increment.crashes, increment.checkpoint) == (3, 2, None)
    assert (image.filename, image.size, image.shard, image.row) == ("basil/1.png", 7, None, None)
    assert (image.pack, image.offset) == (None, None)
    assert [asdict(one) for one in bad] == BAD_FILES
    assert counted == [250, 0]


def test_an_order_of_arrival_is_not_given_again_after_an_upgrade(empty: Database):
    """The table of increments is rebuilt by SQLite, which knows only the rows that are left."""
    upgrade(empty.url, "0001")
    insert = next(one for one in FIRST_RELEASE if "INTO increments" in one)
    with empty.write() as connection:
        for statement in FIRST_RELEASE:
            connection.exec_driver_sql(statement)
        for number in range(4):
            connection.exec_driver_sql(insert.replace("('i',", f"('i{number}',"))
    upgrade(empty.url, "0021")
    with empty.write() as connection:
        connection.exec_driver_sql("DELETE FROM increments WHERE id IN ('i2', 'i3')")
    upgrade(empty.url)
    with empty.write() as connection:
        connection.exec_driver_sql(insert.replace("('i',", "('last',"))
        assert increments.get(connection, "last").arrival == 6


def test_the_last_promotion_of_an_earlier_release_is_on_record_without_what_is_unknown(empty: Database):
    upgrade(empty.url, "0013")
    others = "'resnet32', 32, 3, 'lwf', '{}', 'all', '2026-01-01 00:00:00+00:00'"
    with empty.write() as connection:
        connection.exec_driver_sql(
            "INSERT INTO models (id, name, network, image_size, channels, strategy, recipe, retention, created_at, "
            f"current, previous, current_revision, last_version) VALUES ('m', 'plants', {others}, 4, 2, 9, 5), "
            f"('n', 'none', {others}, NULL, NULL, 0, 0)"
        )
    upgrade(empty.url)
    with empty.read() as connection:
        found = [
            promotions.page(connection, models.get(connection, name), limit=10, cursor=None).items
            for name in ("plants", "none")
        ]
    unknown = {"key_id": None, "key_name": None, "increment_id": None, "reason": None, "created_at": None}
    assert found == [(PromotionRecord(revision=9, version=4, previous=2, **unknown),), ()]


def test_bad_files_are_as_they_were_when_an_upgrade_is_taken_back(empty: Database):
    upgrade(empty.url, "0001")
    with empty.write() as connection:
        for statement in FIRST_RELEASE:
            connection.exec_driver_sql(statement)
    upgrade(empty.url, "0012")
    command.downgrade(configuration(empty.url), "0011")
    with empty.read() as connection:
        query = sa.select(sa.column("rejects", sa.JSON())).select_from(sa.table("batches")).order_by(sa.column("id"))
        assert connection.scalars(query).all() == [BAD_FILES, []]


def test_an_answer_of_an_earlier_release_is_given_again_with_the_first_of_its_bad_files(empty: Database):
    upgrade(empty.url, "0011")
    document = json.dumps({"id": "b", "rejects": BAD_FILES})
    with empty.write() as connection:
        connection.exec_driver_sql(FIRST_RELEASE[0])
        connection.exec_driver_sql(
            "INSERT INTO answers (model_id, key, fingerprint, document, created_at) "
            f"VALUES ('m', 'k', 'f', '{document}', '{MOMENT}'), ('m', 'l', 'f', '{{}}', '{MOMENT}')"
        )
    upgrade(empty.url)
    with empty.read() as connection:
        answered = connection.scalars(sa.select(answers.c.document).order_by(answers.c.key)).all()
    assert answered == [{"id": "b", "rejects": BAD_FILES[:100], "reject_count": 250}, {}]


@pytest.fixture
def with_a_rebuild(tmp_path: Path, database_url: str) -> Config:
    """The migrations with one more, for which SQLite has to drop a table that others refer to."""
    folder = tmp_path / "100 % migrations"
    shutil.copytree(Path(storage.migrations.__file__).parent, folder)
    (folder / "versions" / "9999_rebuild.py").write_text(REBUILD.format(head=head()))
    config = configuration(database_url)
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    return config


def test_rows_survive_when_the_table_they_refer_to_is_rebuilt(world: World, with_a_rebuild: Config):
    model = world.create()
    world.learn(model, "a", "b", kept=1)
    before, grown = world.rows(), world.model()
    command.upgrade(with_a_rebuild, "head")
    assert revision(world.database) == "9999"
    assert (world.rows(), world.model()) == (before, grown)
    command.downgrade(with_a_rebuild, head())
    assert (world.rows(), world.model()) == (before, grown)
    assert differences(world.database) == []
    world.learn(model, "c", "d")


def test_a_migration_that_fails_leaves_the_database_as_it_was(world: World, with_a_rebuild: Config):
    world.learn(world.create(), "a", "b")
    before = world.rows()
    script = Path(str(with_a_rebuild.get_main_option("script_location"))) / "versions" / "9999_rebuild.py"
    script.write_text(script.read_text().replace("def downgrade", "    op.execute('nonsense')\n\n\ndef downgrade"))
    with pytest.raises(Exception, match="nonsense"):
        command.upgrade(with_a_rebuild, "head")
    assert revision(world.database) == head()
    assert world.rows() == before
    assert differences(world.database) == []
