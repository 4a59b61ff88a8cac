"""What entries of the audit log say of the change, for every route that changes something."""

from concurrent.futures import ThreadPoolExecutor

from tests.api.scopes import PREDICT, SCOPES
from tests.api.worlds import class_zip, eventually, picture, running

CHANGING = {route for route, scope in SCOPES.items() if not route.startswith("GET ") and scope is not PREDICT}


def told(world):
    """Every entry by now, oldest first: what was done, and the change."""
    http = world.http
    assert eventually(lambda: all(one["status"] is not None for one in http.get("/v1/audit").json()["items"]))
    return [(one["action"], one["change"]) for one in http.get("/v1/audit?limit=1000").json()["items"]][::-1]


def test_every_change_is_told(settings_for, tmp_path):
    with running(settings_for(tmp_path)) as world:
        http = world.http
        name = world.model()
        world.version(name, "cat", "dog")
        world.version(name, "emu")
        http.patch(f"/v1/models/{name}", json={"strategy": "lwf", "recipe": {"epochs": 3}, "retention": "all"})
        http.patch(f"/v1/models/{name}/classes/emu", json={"label": "rhea"})
        http.put(f"/v1/models/{name}/current", json={"version": 1, "reason": "better"})
        http.delete(f"/v1/models/{name}/versions/2")
        batch = http.post(f"/v1/models/{name}/batches", content=class_zip("fox")).json()["id"]
        opened = http.post(f"/v1/models/{name}/batches").json()["id"]
        added = http.post(f"/v1/batches/{opened}/images", params={"label": "gnu"}, content=picture(1)).json()["images"]
        http.post(f"/v1/batches/{opened}/images", params={"label": "hen"}, content=picture(2))
        http.patch(f"/v1/images/{added[0]['id']}", json={"label": "hen"})
        http.patch(f"/v1/images/{added[0]['id']}", json={"label": "gnu"})
        http.delete(f"/v1/images/{added[0]['id']}")
        http.delete(f"/v1/models/{name}/classes/hen/images")
        increment = world.increment(name, "ibis")["id"]
        http.post(f"/v1/increments/{increment}/cancel")
        http.post(f"/v1/increments/{increment}/retry")
        http.post(f"/v1/increments/{increment}/cancel")
        world.version(name, "owl", "rat")
        edit = http.post(f"/v1/models/{name}/edits", json={"drop": ["rat"]}).json()
        http.post(f"/v1/increments/{edit['id']}/cancel")
        http.delete(f"/v1/batches/{batch}")
        http.delete(f"/v1/models/{name}")
        entries = told(world)
        assert {action for action, _ in entries} == CHANGING
        assert [action for action, change in entries if not change] == []
        last: dict[str, dict[str, object]] = dict(entries)
        assert last["POST /v1/models"] == {"made": {"model": name}}
        assert last["PATCH /v1/models/{name}"]["changed"] == {
            "strategy": ["lwf-bsr", "lwf"],
            "recipe": [{}, {"epochs": 3}],
        }
        assert last["PATCH /v1/models/{name}/classes/{label}"] == {"changed": {"label": ["emu", "rhea"]}}
        asked = {"increment": edit["id"], "edit": {"drop": ["rat"], "merge": []}}
        assert last["POST /v1/models/{name}/edits"] == {"made": asked}
        assert last["PATCH /v1/images/{image_id}"] == {"changed": {"label": ["hen", "gnu"]}}
        assert last["PUT /v1/models/{name}/current"] == {"changed": {"current": [2, 1]}, "reason": "better"}
        assert last["DELETE /v1/models/{name}/versions/{number}"] == {"deleted": {"version": 2}}
        assert last["POST /v1/increments/{increment_id}/retry"] == {"changed": {"status": ["cancelled", "queued"]}}
        assert last["DELETE /v1/models/{name}/classes/{label}/images"] == {"deleted": {"images": 1, "label": "hen"}}
        assert last["DELETE /v1/batches/{batch_id}"] == {"deleted": {"batch": batch, "images": 0}}
        assert last["DELETE /v1/models/{name}"] == {"deleted": {"model": name, "versions": [1, 3]}}
        erased = {"image": added[0]["id"], "label": "gnu", "batch": opened}
        assert last["DELETE /v1/images/{image_id}"] == {"deleted": erased}


def test_what_is_done_already_is_told_once(settings_for, tmp_path):
    with running(settings_for(tmp_path)) as world:
        name = world.model()
        world.version(name, "cat", "dog")
        before = len(told(world))
        key = {"Idempotency-Key": "once"}
        for _ in range(2):
            world.http.post(f"/v1/models/{name}/batches", headers=key)
            world.http.put(f"/v1/models/{name}/current", json={"version": 1})  # as it is
            world.http.patch(f"/v1/models/{name}", json={"strategy": "lwf"})
        changes = [change for _, change in told(world)[before:]]
        assert [change is not None for change in changes] == [True, False, True, False, False, False]


def test_a_change_is_told_in_the_transaction_that_makes_it(settings_for, tmp_path, monkeypatch):
    """As where the process is killed once the change is committed: the end of the entry is never written."""
    monkeypatch.setattr("api.http.auditing._end", lambda *_: None)
    with running(settings_for(tmp_path)) as world:
        name = world.model()
        (entry,) = world.http.get("/v1/audit").json()["items"]
        assert (entry["status"], entry["change"]) == (None, {"made": {"model": name}})


def test_a_refused_change_tells_none(settings_for, tmp_path):
    with running(settings_for(tmp_path)) as world:
        name = world.model()
        assert world.http.post("/v1/models", json={"name": name}).status_code == 409
        assert world.http.patch(f"/v1/models/{name}", json={"strategy": "none"}).status_code == 422
        assert [change for _, change in told(world)] == [{"made": {"model": name}}, None, None]


def test_concurrent_requests_do_not_tell_each_others_changes(settings_for, tmp_path):
    with running(settings_for(tmp_path)) as world:
        names = [f"model-{number}" for number in range(24)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: world.http.post("/v1/models", json={"name": name}), names))
        assert sorted(change["made"]["model"] for _, change in told(world)) == sorted(names)
