"""The Open Inference Protocol by Triton's own clients, and by hand where they are too well-behaved."""

import asyncio
import base64
import gzip
import hashlib
import io
import json
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from PIL import Image
from tritonclient.utils import InferenceServerException

from tests.api.conftest import MAX_REQUEST_BYTES
from tests.api.worlds import SIZE, picture, redis_server, running

LABELS = ("cat", "dog", "emu", "fox", "gnu")


@pytest.fixture(scope="module")
def model(shared_world):
    """A model of five classes in two versions, that no test changes."""
    name = shared_world.model()
    shared_world.version(name, *LABELS[:2])
    shared_world.version(name, *LABELS[2:])
    return name


@pytest.fixture
def client(world):
    """Triton's synchronous client."""
    connected = triton.InferenceServerClient(world.http.base_url.netloc.decode())
    yield connected
    connected.close()


def pixels(*seeds):
    """What pictures are as a tensor: float32 [n, 3, SIZE, SIZE] in 0 … 1."""
    images = [np.asarray(Image.open(io.BytesIO(picture(seed)))) for seed in seeds]
    return (np.stack(images).transpose(0, 3, 1, 2) / 255).astype(np.float32)


def tensor(data, *, binary=True):
    """An input of Triton's client."""
    wanted = triton.InferInput("image", list(data.shape), "FP32" if data.dtype == np.float32 else "BYTES")
    wanted.set_data_from_numpy(data, binary_data=binary)
    return wanted


def files(*seeds):
    """Pictures as a BYTES tensor."""
    return np.array([picture(seed) for seed in seeds], dtype=object)


def by_v1(http, model, *seeds, version=None):
    """Probabilities [n, classes] as /v1 says them, in the order of the labels."""
    body = {"images": [base64.b64encode(picture(seed)).decode() for seed in seeds]}
    query = {"top_k": 5} | ({} if version is None else {"version": version})
    answer = http.post(f"/v1/models/{model}/predictions", params=query, json=body).json()
    rows = [{one["label"]: one["probability"] for one in ranked} for ranked in answer["predictions"]]
    return np.array([[row[label] for label in LABELS if label in row] for row in rows])


# KServe's client (kserve 0.21, `InferenceRESTClient`), whose psutil contradicts ours: what it asks and reads, by hand


def test_health_is_answered_with_the_bodies_that_the_protocol_has(http, model):
    for path, body in (
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        (f"/v2/models/{model}/ready", {"name": model, "ready": True}),
        (f"/v2/models/{model}/versions/1/ready", {"name": model, "ready": True}),
    ):
        answer = http.get(path)
        assert (answer.status_code, answer.json()) == (200, body), path
        assert answer.headers["content-type"] == "application/json"


def test_what_is_not_ready_says_so_in_the_same_form(settings_for, tmp_path):
    with redis_server(tmp_path / "redis") as url:
        settings = settings_for(tmp_path, redis_url=url)
    with running(settings) as world:  # whose Redis is gone
        answer = world.http.get("/v2/health/ready")
        assert (answer.status_code, answer.json()) == (503, {"ready": False})
        assert world.http.get("/v2/health/live").json() == {"live": True}
        refused = world.http.get("/v2/models/nobody/ready")
        assert refused.status_code == 404  # which its `is_model_ready` takes for no
        assert refused.headers["content-type"] == "application/json"  # else it reads no reason
        assert refused.json()["error"]


def test_kserve_s_inference_request_is_answered(http, model):
    """`InferRequest.to_rest` writes JSON first and tensors after it, with the JSON's length in a header."""
    image = pixels(7)
    data = image.astype("<f4").tobytes()
    wanted = {"name": "image", "shape": list(image.shape), "datatype": "FP32"}
    body = {"id": "1", "inputs": [wanted | {"parameters": {"binary_data_size": len(data)}}]}
    head = json.dumps(body).encode()
    headers = {"inference-header-content-length": str(len(head)), "content-type": "application/octet-stream"}
    answer = http.post(f"/v2/models/{model}/infer", content=head + data, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["id"] == "1"
    np.testing.assert_allclose(answer.json()["outputs"][0]["data"], by_v1(http, model, 7)[0], atol=1e-4)


# Triton's synchronous client


def test_the_server_and_its_models_are_described(client, model):
    assert client.is_server_live()
    assert client.is_server_ready()
    described = client.get_server_metadata()
    assert described["name"] == "accrete"
    assert {"binary_tensor_data", "classification", "model_repository"} <= set(described["extensions"])
    assert client.is_model_ready(model)
    assert client.is_model_ready(model, "1")
    assert not client.is_model_ready(model, "3")
    assert not client.is_model_ready("nobody")
    found = client.get_model_metadata(model)
    assert (found["name"], found["versions"]) == (model, ["1", "2"])
    assert found["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 3, SIZE, SIZE]}]
    assert found["outputs"] == [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 5]}]
    assert found["parameters"]["labels"] == list(LABELS)
    assert client.get_model_metadata(model, "1")["outputs"][0]["shape"] == [-1, 2]


def test_the_repository_lists_every_version(client, model, world):
    empty = world.model()
    index = client.get_model_repository_index()
    assert [(one["version"], one["state"]) for one in index if one["name"] == model] == [("1", "READY"), ("2", "READY")]
    assert [(one["state"], one["reason"]) for one in index if one["name"] == empty] == [
        ("UNAVAILABLE", "no version yet")
    ]
    assert not client.is_model_ready(empty)


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_pixels_and_files_say_what_the_other_interface_says(client, http, model, binary_in, binary_out):
    expected = by_v1(http, model, 1, 2, 3)
    asked = None if binary_out is None else [triton.InferRequestedOutput("probabilities", binary_data=binary_out)]
    answer = client.infer(model, [tensor(pixels(1, 2, 3), binary=binary_in)], outputs=asked, request_id="mine")
    assert answer.as_numpy("probabilities") == pytest.approx(expected, abs=1e-5)
    said = answer.get_response()
    assert (said["model_name"], said["model_version"], said["id"]) == (model, "2", "mine")
    if binary_in:
        answer = client.infer(model, [tensor(files(1, 2, 3))], outputs=asked)
        assert answer.as_numpy("probabilities") == pytest.approx(expected, abs=1e-5)


def test_a_version_is_asked_by_its_number(client, http, model):
    answer = client.infer(model, [tensor(pixels(1))], model_version="1")
    assert answer.get_response()["model_version"] == "1"
    assert answer.as_numpy("probabilities") == pytest.approx(by_v1(http, model, 1, version=1), abs=1e-5)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("k", [1, 3, 100])
def test_the_best_classes_come_as_value_index_and_label(client, http, model, binary, k):
    asked = triton.InferRequestedOutput("probabilities", binary_data=binary, class_count=k)
    found = client.infer(model, [tensor(pixels(1, 2))], outputs=[asked]).as_numpy("probabilities")
    expected = by_v1(http, model, 1, 2)
    assert found.shape == (2, min(k, 5))
    for row, probabilities in zip(found, expected, strict=True):
        told = [text.decode() if isinstance(text, bytes) else text for text in row]
        order = np.argsort(-probabilities)[:k]
        assert [text.split(":")[1:] for text in told] == [[str(index), LABELS[index]] for index in order]
        assert [float(text.split(":")[0]) for text in told] == pytest.approx(probabilities[order], abs=1e-5)


@pytest.mark.parametrize("request_form", [None, "gzip", "deflate"])
@pytest.mark.parametrize("response_form", [None, "gzip", "deflate"])
def test_bodies_may_be_compressed(client, http, model, request_form, response_form):
    answer = client.infer(
        model,
        [tensor(pixels(*range(8)))],
        outputs=[triton.InferRequestedOutput("probabilities", binary_data=False)],
        request_compression_algorithm=request_form,
        response_compression_algorithm=response_form,
    )
    assert answer.as_numpy("probabilities") == pytest.approx(by_v1(http, model, *range(8)), abs=1e-5)


def test_a_long_answer_is_compressed_where_it_is_wanted(http, model):
    body = json_body(pixels(*range(8)), id="x" * 900)
    plain = ask(http, model, body, headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    for form in ("gzip", "deflate"):
        packed = ask(http, model, body, headers={"Accept-Encoding": f"br, {form}"})
        assert packed.headers["content-encoding"] == form
        assert packed.json()["outputs"][0]["shape"] == [8, 5]
    assert "content-encoding" not in ask(http, model, body, headers={"Accept-Encoding": "gzip;q=0"}).headers


def test_what_was_answered_is_on_record(client, http, model):
    record = client.infer(model, [tensor(pixels(1))]).get_response()["parameters"]["record"]
    kept = http.get(f"/v1/predictions/{record}").json()
    assert (kept["model"], kept["version"]) == (model, 2)
    assert kept["digests"] is None  # of pixels


@pytest.mark.parametrize(("given", "kept"), [("belt 3", "belt 3"), ("x" * 201, None), ("a\tb", None), (None, None)])
def test_the_id_of_a_request_is_its_reference_on_record(http, model, given, kept):
    data = [base64.b64encode(picture(1)).decode()]
    document = json.loads(one_input(datatype="BYTES", shape=[1], data=data))
    answer = ask(http, model, json.dumps(document | ({} if given is None else {"id": given}))).json()
    record = http.get(f"/v1/predictions/{answer['parameters']['record']}").json()
    assert record["reference"] == kept
    assert record["digests"] == [hashlib.sha256(picture(1)).hexdigest()]


def test_errors_reach_the_client_in_words(client, model):
    with pytest.raises(InferenceServerException, match="no version 9"):
        client.infer(model, [tensor(pixels(1))], model_version="9")
    with pytest.raises(InferenceServerException, match="no model named"):
        client.infer("nobody", [tensor(pixels(1))])
    with pytest.raises(InferenceServerException, match=r"\[3, 8, 8\]"):
        client.infer(model, [tensor(np.zeros((1, 3, 9, 9), np.float32))])
    with pytest.raises(InferenceServerException, match="1 to 8"):
        client.infer(model, [tensor(pixels(*range(9)))])
    with pytest.raises(InferenceServerException, match=r"Image 1 .*cannot be read"):
        client.infer(model, [tensor(np.array([picture(1), b"junk"], dtype=object))])


def test_a_request_may_say_how_long_it_waits(client, model):
    with pytest.raises(InferenceServerException, match="deadline"):
        client.infer(model, [tensor(pixels(1))], timeout=1)  # microseconds
    assert client.infer(model, [tensor(pixels(1))], timeout=20_000_000).as_numpy("probabilities").shape == (1, 5)


# Triton's asyncio client


def test_many_at_once_by_asyncio_each_get_their_own_answer(world, http, model):
    expected = {seed: by_v1(http, model, seed) for seed in range(16)}

    async def ask_all():
        async with triton_aio.InferenceServerClient(world.http.base_url.netloc.decode()) as client:
            assert await client.is_server_ready()
            assert await client.is_model_ready(model)
            assert (await client.get_model_metadata(model))["versions"] == ["1", "2"]
            found = await asyncio.gather(*(client.infer(model, [tensor(pixels(seed))]) for seed in expected))
            with pytest.raises(InferenceServerException, match="no model named"):
                await client.infer("nobody", [tensor(pixels(1))])
            return [one.as_numpy("probabilities") for one in found]

    for probabilities, wanted in zip(asyncio.run(ask_all()), expected.values(), strict=True):
        assert probabilities == pytest.approx(wanted, abs=1e-5)


# What well-behaved clients do not send


def json_body(data, **members):
    """An inference request all in JSON."""
    given = {"name": "image", "shape": list(data.shape), "datatype": "FP32", "data": data.flatten().tolist()}
    return json.dumps({"inputs": [given], **members})


def ask(http, model, content, *, headers=None, length=None):
    """Send a body to the inference route as it is."""
    headers = (headers or {}) | ({} if length is None else {"Inference-Header-Content-Length": str(length)})
    return http.post(f"/v2/models/{model}/infer", content=content, headers=headers)


def refused(answer, status, words):
    """Check that an answer is the protocol's error, and says what is wrong."""
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    assert words in answer.json()["error"]


def one_input(**members):
    """A request in JSON with one input, some of whose members are changed."""
    given = {"name": "image", "shape": [1, 3, SIZE, SIZE], "datatype": "FP32", "data": [0.5] * (3 * SIZE * SIZE)}
    return json.dumps({"inputs": [given | members]})


def test_nested_lists_are_taken_too(http, model):
    nested = one_input(data=pixels(1).tolist())
    assert ask(http, model, nested).json()["outputs"][0]["data"] == pytest.approx(by_v1(http, model, 1)[0], abs=1e-5)


def test_files_in_json_are_base64(http, model):
    data = [base64.b64encode(picture(seed)).decode() for seed in (1, 2)]
    answer = ask(http, model, one_input(datatype="BYTES", shape=[2], data=data)).json()
    assert answer["outputs"][0]["data"] == pytest.approx(by_v1(http, model, 1, 2).flatten(), abs=1e-5)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"shape": [1, 3, SIZE]}, "[images, channels, height, width]"),
        ({"shape": [2, 3, SIZE, SIZE]}, "elements"),
        ({"shape": [2**40, 2**40, 2**40, 2**40]}, "elements"),
        ({"shape": [10**400, 3, SIZE, SIZE]}, "elements"),
        ({"shape": [-1, 3, SIZE, SIZE]}, "shape"),
        ({"shape": [1.5, 3, SIZE, SIZE]}, "shape"),
        ({"shape": [0, 3, SIZE, SIZE], "data": []}, "0 images"),
        ({"shape": []}, "shape"),
        ({"shape": [1] * 1000}, "shape"),
        ({"shape": None}, "shape"),
        ({"datatype": "FP64"}, "FP32 or BYTES"),
        ({"datatype": "x" * 10_000}, "FP32 or BYTES"),
        ({"datatype": None}, "datatype"),
        ({"name": "picture"}, "'picture'"),
        ({"data": None}, "either data or"),
        ({"data": [0.5]}, "elements"),
        ({"data": ["a"] * (3 * SIZE * SIZE)}, "lists of numbers"),
        ({"data": [True] * (3 * SIZE * SIZE)}, "lists of numbers"),
        ({"data": [None] * (3 * SIZE * SIZE)}, "lists of numbers"),
        ({"data": [{}] * (3 * SIZE * SIZE)}, "lists of numbers"),
        ({"data": [[1, 2], [3]]}, "lists of numbers"),
        ({"data": [float("nan")] * (3 * SIZE * SIZE)}, "NaN"),
        ({"data": [float("inf")] * (3 * SIZE * SIZE)}, "NaN"),
        ({"data": [1e300] * (3 * SIZE * SIZE)}, "NaN or infinity"),
        ({"data": [10**400] * (3 * SIZE * SIZE)}, "lists of numbers"),
        ({"parameters": {"binary_data_size": 768}}, "either data or"),
        ({"datatype": "BYTES", "shape": [1], "data": ["a!b"]}, "base64"),
        ({"datatype": "BYTES", "shape": [1], "data": [1]}, "base64"),
        ({"datatype": "BYTES", "shape": [2], "data": [""]}, "elements"),
        ({"datatype": "BYTES", "shape": [], "data": [""]}, "elements"),
    ],
)
def test_a_tensor_that_is_none_is_refused(http, model, members, words):
    answer = ask(http, model, one_input(**members))
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert words in answer.json()["error"]
    assert len(answer.json()["error"]) < 1000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"inputs": []}',
        b'{"inputs": [1]}',
        b"[" * 100_000,
        b'{"inputs": ' + b"[" * 100_000,
        b'{"inputs": "\xff"}',
        b'{"inputs": "\\ud800"}',
        b"\x80\x04N.",
    ],
)
def test_a_body_that_is_no_request_is_refused(http, model, body):
    refused(ask(http, model, body), 400, "cannot be read")


def binary(data: bytes, **members):
    """The JSON of a request whose tensor stands behind it, and the whole body."""
    given = {"name": "image", "shape": [1, 3, SIZE, SIZE], "datatype": "FP32"}
    given |= {"parameters": {"binary_data_size": len(data)}} | members
    text = json.dumps({"inputs": [given]}).encode()
    return text, text + data


@pytest.mark.parametrize("length", ["-1", "1e3", "0x10", "", "９", "99999999", "9" * 5000, "5"])
def test_a_wrong_header_length_is_refused(http, model, length):
    _, body = binary(pixels(1).tobytes())
    headers = {"Inference-Header-Content-Length": length.encode()}
    assert ask(http, model, body, headers=headers).status_code == 400


def test_a_binary_part_of_another_length_is_refused(http, model):
    whole = pixels(1).tobytes()
    for data in (whole[:-1], whole + b"\0", whole[:4], b""):
        text, body = binary(data)
        refused(ask(http, model, body, length=len(text)), 400, "bytes")
    text, body = binary(whole)
    refused(ask(http, model, body[:-3], length=len(text)), 400, "follow the JSON")
    text, body = binary(whole, parameters={"binary_data_size": 2**63})
    assert ask(http, model, body, length=len(text)).status_code == 400
    for value in (np.nan, np.inf, -np.inf):
        data = np.full((1, 3, SIZE, SIZE), value, np.float32).tobytes()
        text, body = binary(data)
        refused(ask(http, model, body, length=len(text)), 400, "NaN or infinity")


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<I", 2**32 - 1) + b"short",
        struct.pack("<I", 5) + b"four",
        b"\1\0",
        struct.pack("<I", 0) * 1000,
    ],
)
def test_elements_that_overrun_or_are_too_many_are_refused(http, model, data):
    text, body = binary(data, shape=[1], datatype="BYTES")
    assert ask(http, model, body, length=len(text)).status_code == 400


def test_a_bomb_is_unpacked_no_further_than_the_limit(http, model):
    for packed, form in ((gzip.compress(bytes(1 << 28)), "gzip"), (zlib.compress(bytes(1 << 28)), "deflate")):
        tracemalloc.start()
        refused(ask(http, model, packed, headers={"Content-Encoding": form}), 413, "unpacks to more")
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert most < 16 * MAX_REQUEST_BYTES


@pytest.mark.parametrize("form", ["gzip", "deflate"])
def test_a_damaged_compressed_body_is_refused(http, model, form):
    whole = gzip.compress(one_input().encode()) if form == "gzip" else zlib.compress(one_input().encode())
    for body in (whole[:-6], whole[: len(whole) // 2], whole + b"more", b"", b"junk"):
        assert ask(http, model, body, headers={"Content-Encoding": form}).status_code == 400
    assert ask(http, model, one_input(), headers={"Content-Encoding": "br"}).status_code == 400


def test_a_body_beyond_the_limit_is_refused(http, model):
    refused(ask(http, model, bytes(MAX_REQUEST_BYTES + 1)), 413, "larger than")


@pytest.mark.parametrize("path", ["/v2/models/{}/versions/x", "/v2/models/{}/versions/0", "/v2/models/{}/nothing"])
def test_every_error_under_v2_has_the_protocols_form(http, model, path):
    answer = http.get(path.format(model))
    assert answer.status_code in {400, 404}
    assert list(answer.json()) == ["error"]
    assert list(http.get("/v2/models/nobody").json()) == ["error"]
    assert list(http.put("/v2").json()) == ["error"]


@pytest.mark.parametrize("value", [-1.0, -0.01, 1.01, 2.0, 255.0, 3e38])
def test_pixels_outside_the_range_are_refused_with_what_is_wanted(http, model, value):
    data = np.full((1, 3, SIZE, SIZE), 0.5, np.float32)
    data[0, 1, 2, 3] = value
    refused(ask(http, model, json_body(data)), 400, "pixels are numbers in 0 … 1")


@pytest.mark.parametrize("value", [0.0, 1.0, -1e-6, 1 + 1e-6])
def test_pixels_at_the_ends_of_the_range_are_taken(http, model, value):
    assert ask(http, model, json_body(np.full((1, 3, SIZE, SIZE), value, np.float32))).status_code == 200
