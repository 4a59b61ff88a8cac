"""API keys and the audit log in the database: what is kept of a key, and what is never lost of a change."""

import hashlib

import pytest
from sqlalchemy import text

from storage.domain import Key, Scope
from storage.errors import Invalid, KeyNotFound
from storage.history import models
from storage.requests import audit, keys
from tests.storage.worlds import World

SECRET = "0123456789abcdef" * 4


def made(world: World, name: str = "robot", *scopes: Scope, **options) -> tuple[Key, str]:
    return world.write(keys.create, name=name, scopes=scopes or (Scope.PREDICT,), **options)


def test_a_key_is_found_by_its_digest_and_never_stored(world: World):
    model = world.create()
    key, secret = made(world, "robot", Scope.TRAIN, Scope.PREDICT, model_id=model.id, rate=2.5)
    assert secret.startswith("accrete_")
    assert len(secret) >= 8 + 43  # 32 bytes in base64
    assert key.digest == hashlib.sha256(secret.encode()).hexdigest()
    assert world.read(keys.of_digest, key.digest) == key
    assert world.read(keys.in_force) == world.read(keys.every) == (key,)
    assert key.scopes == {Scope.TRAIN, Scope.PREDICT}
    assert (key.model_id, key.rate) == (model.id, 2.5)
    with world.database.read() as connection:
        row = connection.execute(text("SELECT * FROM keys")).one()
    assert secret.removeprefix("accrete_") not in str(row)


def test_no_two_keys_are_alike(world: World):
    assert len({made(world)[1] for _ in range(20)}) == 20


@pytest.mark.parametrize("scope", Scope)
def test_who_trains_may_predict_and_an_admin_may_everything(world: World, scope: Scope):
    key, _ = made(world, "robot", scope)
    may = {Scope.PREDICT: {Scope.PREDICT}, Scope.TRAIN: {Scope.PREDICT, Scope.TRAIN}, Scope.ADMIN: set(Scope)}
    assert {other for other in Scope if key.allows(other)} == may[scope]


@pytest.mark.parametrize("by", ["id", "name"])
def test_a_revoked_key_is_not_found_any_more_but_listed(world: World, by: str):
    key, _ = made(world, "robot")
    other, _ = made(world, "other")
    (revoked,) = world.write(keys.revoke, getattr(key, by))
    assert revoked == key
    assert world.read(keys.of_digest, key.digest) is None
    assert world.read(keys.in_force) == (other,)
    assert [one.revoked_at is not None for one in world.read(keys.every)] == [True, False]
    with pytest.raises(KeyNotFound, match="keys list"):
        world.write(keys.revoke, getattr(key, by))


def test_a_name_may_stand_for_several_keys(world: World):
    both = {made(world, "robot")[0].id for _ in range(2)}
    assert {key.id for key in world.write(keys.revoke, "robot")} == both


def test_a_key_of_a_model_goes_with_it(world: World):
    made(world, "robot", model_id=world.create().id)
    world.write(models.delete_model, "plants")
    assert world.read(keys.every) == ()


def test_the_key_of_the_file_is_installed_once_and_replaced_with_the_file(world: World):
    first = world.write(keys.install_admin, SECRET)
    assert world.write(keys.install_admin, SECRET) == first
    assert first.allows(Scope.ADMIN)
    second = world.write(keys.install_admin, SECRET[::-1])
    assert world.read(keys.in_force) == (second,)


def test_the_key_of_the_file_stays_revoked_once_it_is(world: World):
    world.write(keys.install_admin, SECRET)
    world.write(keys.revoke, keys.ADMIN_FILE)
    world.write(keys.install_admin, SECRET)
    assert world.read(keys.in_force) == ()


@pytest.mark.parametrize("secret", ["", "short", "x" * 31, "x" * 501, "ä" * 40, "two words" * 5, "line\n" * 10])
def test_a_key_that_could_be_guessed_or_not_be_sent_is_refused(world: World, secret: str):
    with pytest.raises(Invalid, match="openssl rand"):
        world.write(keys.install_admin, secret)
    assert world.read(keys.every) == ()


def test_a_change_is_on_record_before_it_is_made_and_gets_its_end_once(world: World):
    key, _ = made(world)
    number = world.write(
        audit.begin, key=key, client="10.0.0.1", action="DELETE /v1/models/{name}", path="/v1/models/a"
    )
    (open_,) = world.read(audit.page, limit=10, cursor=None).items
    assert (open_.key_id, open_.key_name, open_.client, open_.status) == (key.id, "robot", "10.0.0.1", None)
    world.write(audit.end, number, status=204)
    world.write(audit.end, number, status=500)
    (ended,) = world.read(audit.page, limit=10, cursor=None).items
    assert (ended.number, ended.status, ended.path) == (number, 204, "/v1/models/a")


def test_the_record_outlives_keys_and_models_and_comes_latest_first(world: World):
    key, _ = made(world, "robot", model_id=world.create().id)
    for path in "abc":
        world.write(audit.begin, key=key, client="c", action="a", path=path)
    world.write(models.delete_model, "plants")
    world.write(audit.note, action="create key", path="d", change={})
    first = world.read(audit.page, limit=3, cursor=None)
    rest = world.read(audit.page, limit=3, cursor=first.next_cursor)
    assert [entry.path for entry in (*first.items, *rest.items)] == ["d", "c", "b", "a"]
    assert first.items[0].key_name == audit.COMMAND_LINE
    assert [entry.key_name for entry in rest.items] == ["robot"]


def test_what_is_too_long_to_keep_is_cut_off(world: World):
    world.write(audit.begin, key=None, client="c" * 300, action="a" * 300, path="p" * 3000)
    (entry,) = world.read(audit.page, limit=1, cursor=None).items
    assert (len(entry.client), len(entry.action), len(entry.path)) == (100, 200, 2000)
