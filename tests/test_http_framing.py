"""Where one request ends and the next begins (S24): the gateway and the runtime's own server see the same in all of it."""

import asyncio
from pathlib import Path

import pytest

import models_for_tests as models
from http_both import Target, play_all, runtime
from http_corpus import cases
from http_mutations import mutations
from http_requests import Case
from roost_process import RoostProcess

ROOT = Path(__file__).parent.parent
CORPUS = cases()
MUTATIONS = mutations(600, seed=24)
LIMIT_S = "4"  # long enough for a slow machine, short enough to wait for


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("framing")
    path = models.add_one(folder / "one.onnx")
    limits = {"ROOST_LIMIT_HEAD_S": LIMIT_S, "ROOST_LIMIT_BODY_IDLE_S": LIMIT_S}
    with (
        RoostProcess(folder, **limits) as gateway,
        runtime(path, "--head-s", LIMIT_S, "--body-idle-s", LIMIT_S) as behind,
    ):
        key = gateway.make_tenant()
        gateway.deploy(key, "one", path, min_scale=1)
        target = Target(gateway.port, b"/t/acme/v2/models/one/infer", f"authorization: Bearer {key}".encode())
        yield target, behind
        assert gateway.stop() == 0
        log = gateway.log_file.read_text()
        assert "Traceback" not in log
        assert '"exception"' not in log
        assert not gateway.events("replica_lost")
        assert key not in log


def seen_by(servers: tuple[Target, Target], played: list[Case]) -> tuple[dict[str, str], dict[str, str]]:
    async def at_both() -> list[dict[str, str]]:
        return await asyncio.gather(*(play_all(server, played) for server in servers))

    gateway, behind = asyncio.run(at_both())
    return gateway, behind


@pytest.fixture(scope="module")
def corpus_seen(servers):
    return seen_by(servers, CORPUS)


def test_s24_the_corpus_is_large_and_its_names_are_unique():
    assert len({case.name for case in CORPUS}) == len(CORPUS) >= 150


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case.name)
def test_s24_both_servers_take_and_refuse_the_same(corpus_seen, case):
    gateway, behind = (seen[case.name] for seen in corpus_seen)
    assert gateway == behind
    assert case.expected in ("?", gateway)


def test_s24_both_servers_agree_on_600_damaged_requests(servers):
    gateway, behind = seen_by(servers, MUTATIONS)
    data = {case.name: case.data for case in MUTATIONS}
    assert not {name: (gateway[name], behind[name], data[name]) for name in data if gateway[name] != behind[name]}
    assert any("a m" in seen for seen in gateway.values())
    assert any(seen == "!" for seen in gateway.values())


def test_s24_both_servers_keep_one_reading_of_the_standard():
    """Neither may import the other, so each has the file, and it is one."""
    gateway, behind = ROOT / "gateway/roost_gateway/framing.py", ROOT / "runtimes/roost_runtimes/framing.py"
    assert gateway.read_bytes() == behind.read_bytes()
