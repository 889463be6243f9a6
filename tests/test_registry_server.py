"""Bad and unlucky uploads to a real server, over real sockets: a clear refusal, and nothing of them is left."""

import json
import os
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
from onnx import helper

import hostile_models as hostile
import models_for_tests as models
from hostile_models import external, identity, value
from registry_parts import adding
from roost_process import RoostProcess, until

BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1.0, 2.0]}]})


class Caller:
    """An upload client of one tenant that shows each answer as it is."""

    def __init__(self, server: RoostProcess) -> None:
        self.server = server
        self.key = server.make_tenant()
        self.http = httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {self.key}"}, timeout=60)

    def upload(self, data: bytes, model: str = "iris", **headers: str) -> httpx.Response:
        return self.http.post(f"/api/v1/models/{model}/versions", content=data, headers=headers)

    def refusal(self, data: bytes, **headers: str) -> tuple[int, str]:
        """Status and code; the answer has a whole error document and gives nothing of ours away."""
        answer = self.upload(data, **headers)
        document = answer.json()
        assert {"code", "error", "request_id"} <= document.keys(), document
        for inside in (str(self.server.data), "Traceback", "::", "/tmp", "staging"):
            assert inside not in answer.text
        return answer.status_code, document["code"]

    def models(self) -> list[str]:
        return [model["model"] for model in self.http.get("/api/v1/models").json()["models"]]

    def predict(self, model: str = "iris") -> list[float]:
        answer = self.http.post(f"/t/acme/v2/models/{model}/infer", content=BODY)
        assert answer.status_code == 200, answer.text
        return answer.json()["outputs"][0]["data"]

    def wait_until_ready(self, model: str = "iris") -> None:
        until(lambda: self.http.get(f"/api/v1/models/{model}").json()["state"] in ("ready", "asleep"), within=60)

    def files(self) -> list[str]:
        """Uploaded and baked files, and what uploads under way have written."""
        folders = ("staging", "artifacts", "baked")
        return sorted(str(f) for name in folders for f in (self.server.data / name).rglob("*") if f.is_file())


@contextmanager
def serving(folder: Path, **environment: str):
    with RoostProcess(folder, **environment) as server:
        caller = Caller(server)
        with caller.http:
            yield caller
        assert server.stop() == 0


@pytest.fixture(scope="module")
def caller(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("uploads")) as made:
        yield made


@pytest.fixture(autouse=True)
def _nothing_is_left(request):
    yield
    if "caller" in request.fixturenames:
        caller = request.getfixturevalue("caller")
        for model in caller.models():
            assert caller.http.delete(f"/api/v1/models/{model}").status_code in (202, 204)
        until(lambda: not caller.models() and not caller.files(), within=60, what="an empty server")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"\x89PNG\r\n\x1a\n" + bytes(1000),
        b"PK\x03\x04" + bytes(1000),
        b"\x80\x04\x95\x10\0\0\0\0\0\0\0\x8c\x05posix",
        b"<!doctype html><p>model</p>",
        b"7z\xbc\xaf\x27\x1c" + bytes(100),
        b"\x1f\x8b\x08" + bytes(100),
        b"../../etc/passwd".ljust(257, b"\0") + b"ustar" + bytes(250),
        b"(dp0\nS'a'\n",
    ],
    ids=["empty", "byte", "png", "zip", "pickle", "html", "7z", "gzip", "tar", "old-pickle"],
)
def test_u1_u2_s5_s14_what_is_no_model_is_refused_whatever_it_is_called(caller, data):
    assert caller.refusal(data) == (422, "not_onnx")


@pytest.mark.parametrize("kind", ["application/zip", "application/x-tar", "application/x-7z-compressed", "text/html"])
def test_s14_archives_are_refused_by_their_type(caller, kind):
    assert caller.refusal(identity().SerializeToString(), **{"Content-Type": kind}) == (415, "unsupported_media_type")


def test_u1_a_model_cut_at_every_kilobyte_is_refused(caller, tmp_path):
    whole = models.big_weights(tmp_path / "big.onnx", 1).read_bytes()[:60_000]
    for size in range(0, len(whole), 1024):
        status, code = caller.refusal(whole[:size])
        assert (status, code) == (422, "not_onnx"), size


def _negative(model):
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    return model


def _named_function() -> bytes:
    node = helper.make_node("Evil", ["x"], ["y"], name="run", domain="com.evil")
    return hostile.model(
        [node], [value("x", [1])], [value("y", [1])], more_opsets=[("com.evil", 1)]
    ).SerializeToString()


def _context() -> bytes:
    node = helper.make_node("EPContext", ["x"], ["y"], name="load", domain="com.microsoft")
    made = hostile.model([node], [value("x", [1])], [value("y", [1])], more_opsets=[("com.microsoft", 1)])
    return made.SerializeToString()


MARKED = external("w", "*/_ORT_MEM_ADDR_/*", offset="140000000000")
ODD = external("w", "weights.bin", offset="-1", length=str(2**62), __class__="x")
REFUSED = {
    "s6-u3-parent-folder": (hostile.with_initializer(external("w")), "external_data", "'w'"),
    "s6-absolute": (hostile.with_initializer(external("w", "/etc/passwd")), "external_data", "'w'"),
    "s6-empty": (hostile.with_initializer(external("w", "")), "external_data", "'w'"),
    "s6-constant": (hostile.with_constant(external("w")), "external_data", "const"),
    "s6-sparse": (hostile.with_sparse(external("w")), "external_data", "'w'"),
    "s6-subgraph": (hostile.with_subgraph(external("w")), "external_data", "'w'"),
    "s6-function": (hostile.with_function_constant(external("w")), "external_data", "attribute 'value'"),
    "s7-initializer": (hostile.with_initializer(MARKED), "external_data", "'w'"),
    "s7-sparse-indices": (hostile.with_sparse(MARKED, part="indices"), "external_data", "'w'"),
    "s7-constant": (hostile.with_constant(MARKED), "external_data", "const"),
    "s8-keys": (hostile.with_initializer(ODD), "external_data", "'w'"),
    "s10-bomb": (hostile.memory_bomb(), "out_of_memory", "memory"),
    "s10-expand": (hostile.expand_bomb(), "out_of_memory", "memory"),
    "s12-depth": (hostile.nested(200), "too_deep", "deep"),
    "s12-ring": (hostile.recursive_functions(), "invalid_graph", "calls itself"),
    "s12-doubling": (hostile.doubling_functions(), "invalid_graph", "nodes"),
    "s12-million": (hostile.many_nodes(1_000_000), "invalid_graph", "nodes"),
    "s13-domain": (_named_function(), "unknown_operator_domain", "'run'"),
    "s13-context": (_context(), "unsupported_operator", "'load'"),
    "u5-ir": (identity(ir=999), "unsupported_ir", "3 to "),
    "u5-opset": (identity(opset=999), "unsupported_opset", "7 to "),
    "u5-opset-0": (identity(opset=0), "unsupported_opset", "7 to "),
    "u7-negative": (_negative(identity()), "invalid_graph", "negative"),
    "u7-product": (
        hostile.model([helper.make_node("Relu", ["x"], ["y"])], [value("x", [2**62, 4])], [value("y", [None, 4])]),
        "invalid_graph",
        "2^63",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_hostile_models_are_refused_with_a_code_and_the_place(caller, case):
    made, code, named = REFUSED[case]
    data = made if isinstance(made, bytes) else made.SerializeToString()
    assert caller.refusal(data) == (422, code)
    assert named in caller.upload(data).json()["error"]


def test_u5_a_model_without_an_opset_is_refused_with_the_range(caller):
    made = identity()
    del made.opset_import[:]
    assert caller.refusal(made.SerializeToString()) == (422, "unsupported_opset")
    assert "supported are 7 to" in caller.upload(made.SerializeToString()).json()["error"]


def test_u7_dynamic_and_zero_dimensions_are_taken(caller):
    for name, shape in (("dynamic", ["N", 3]), ("zero", [0, 3])):
        made = hostile.model([helper.make_node("Relu", ["x"], ["y"])], [value("x", shape)], [value("y", shape)])
        assert caller.upload(made.SerializeToString(), model=name).status_code == 201


def test_s13_a_library_is_never_loaded_for_an_operator(caller):
    """An operator built into ONNX Runtime's own domain is served; the name of a library has no meaning anywhere."""
    made = identity()
    made.metadata_props.add(key="custom_ops_library", value="/tmp/evil.so")
    assert caller.upload(made.SerializeToString()).status_code == 201


@pytest.mark.parametrize("same", [True, False], ids=["same bytes", "different bytes"])
def test_u10_two_uploads_at_once(caller, same):
    """The same bytes are one version; others are the next version, for versions are numbered by the server."""
    files = [adding(1), adding(1 if same else 2)]
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(caller.upload, files))
    versions = sorted(answer.json()["version"] for answer in answers)
    assert sorted(answer.status_code for answer in answers) == ([200, 201] if same else [201, 201])
    assert versions == ([1, 1] if same else [1, 2])
    assert len([f for f in caller.files() if "artifacts" in f]) == (1 if same else 2)


def test_u11_a_client_gone_half_way_leaves_nothing_and_uploads_again(caller, tmp_path):
    data = models.big_weights(tmp_path / "big.onnx", 4).read_bytes()
    head = (
        f"POST /api/v1/models/iris/versions HTTP/1.1\r\nHost: roost\r\nAuthorization: Bearer {caller.key}\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    )
    with closing(socket.create_connection(("127.0.0.1", caller.server.port))) as connection:
        connection.sendall(head.encode() + data[: len(data) // 2])
        until(caller.files, within=60)
        assert caller.models() == []
    until(lambda: not caller.files(), within=60, what="the half file's end")
    assert caller.models() == []
    assert caller.upload(data).status_code == 201


def test_u15_a_model_deleted_while_it_loads_is_gone(caller, tmp_path):
    """At many moments of the first load; each time the name can be used again at once, and serves."""
    data = models.big_weights(tmp_path / "big.onnx", 8).read_bytes()
    for pause in (0, 0.01, 0.03, 0.1, 0.3):
        assert caller.upload(data, "short").status_code == 201
        threading.Event().wait(pause)
        assert caller.http.delete("/api/v1/models/short").status_code in (202, 204)
        assert caller.http.get("/api/v1/models/short").status_code == 404
        assert caller.http.post("/t/acme/v2/models/short/infer", content=BODY).status_code == 404
        until(lambda: not caller.server.replicas("short") and not caller.files(), within=60)


def test_the_processes_that_judge_files_are_gone_when_the_server_is_killed(tmp_path):
    with RoostProcess(tmp_path) as server:
        caller = Caller(server)
        data = hostile.endless_loop().SerializeToString()
        with ThreadPoolExecutor(1) as pool, caller.http:
            upload = pool.submit(caller.upload, data)
            until(lambda: [p.name for p in server.children()].count("roost-check") == 2, within=60)
            children = server.kill()
            until(lambda: not any(child.lives() for child in children), within=60)
            assert isinstance(upload.exception(), httpx.HTTPError)


@pytest.fixture
def small_disk(tmp_path):
    """48 MB in memory for the data folder."""
    folder = tmp_path / "data"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48m,mode=700", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk is not permitted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_u12_a_disk_that_fills_up_at_any_byte_refuses_the_upload_and_keeps_what_was_there(small_disk, tmp_path):
    data = models.big_weights(tmp_path / "big.onnx", 8).read_bytes()
    with serving(tmp_path) as caller:
        assert caller.upload(adding(1)).status_code == 201
        caller.wait_until_ready()
        assert caller.predict() == [2.0, 3.0]
        before, filler = caller.files(), small_disk / "filler"
        free = os.statvfs(small_disk).f_bavail * 4096
        for left in (64 * 1024, 1_000_000, len(data) // 2, len(data) - 4096):
            filler.write_bytes(bytes(free - left - 2**20))
            with filler.open("ab") as file:
                file.write(bytes(max(os.statvfs(small_disk).f_bavail * 4096 - left, 0)))
            assert caller.refusal(data) == (507, "storage_full"), left
            assert caller.files() == before
            filler.unlink()
            assert caller.predict() == [2.0, 3.0], "what was there is served on"
        assert caller.upload(data, "big").status_code == 201, "the space was given back"
        caller.wait_until_ready("big")


def test_u12_a_disk_too_small_for_the_bake_serves_the_file_unbaked_or_refuses_it(small_disk, tmp_path):
    """Room for the file alone, with the rest of it: 20 MB and a bake of 20 MB on 48 MB, of which 20 are taken."""
    data = models.big_weights(tmp_path / "big.onnx", 20).read_bytes()
    with serving(tmp_path) as caller:
        (small_disk / "filler").write_bytes(bytes(20 * 2**20))
        answer = caller.upload(data, "big")
        assert answer.status_code in (201, 507), answer.text
        if answer.status_code == 201:
            caller.wait_until_ready("big")
            assert not [f for f in caller.files() if "weights" in f]
        else:
            assert caller.files() == []
