"""`roost doctor` where Ray runs the models: what is not well is named, with what to do. Needs no Ray."""

import pytest

from free_ports import free_port
from recording_server import serving
from roost_gateway.doctor.judging import Verdict
from roost_gateway.doctor.on_ray import examine_ray
from roost_gateway.engine_settings import RaySettings


def test_where_nothing_runs_yet_all_is_well():
    findings = examine_ray(RaySettings(http_port=free_port(), cpus=2))
    assert [finding.verdict for finding in findings] == [Verdict.OK] * 2
    assert "nobody listens" in findings[0].says
    assert findings[1].says == "2 cores for replicas of 1 each"


def test_a_replica_that_never_fits_is_told():
    *_, finding = examine_ray(RaySettings(http_port=free_port(), cpus=2, replica_cpus=4))
    assert (finding.verdict, finding.says) == (Verdict.FAIL, "a replica asks for 4 cores, and Ray would have 2")
    assert "ROOST_RAY_REPLICA_CPUS" in finding.do


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (200, "success", Verdict.OK),
        (503, "not ready", Verdict.WARN),
        (200, "hello", Verdict.FAIL),
        (404, "", Verdict.FAIL),
    ],
)
def test_what_listens_where_the_proxy_should_is_looked_at(status, body, verdict):
    with serving() as server:
        server.on("GET /-/healthz", body, status=status)
        finding, *_ = examine_ray(RaySettings(http_port=int(server.url.rpartition(":")[2]), cpus=2))
    assert finding.verdict is verdict
    assert bool(finding.do) == (verdict is not Verdict.OK)


def test_an_address_beyond_this_machine_is_refused_until_the_network_is_said_to_be_safe():
    (finding,) = examine_ray(RaySettings(http_host="0.0.0.0"))
    assert finding.verdict is Verdict.FAIL
    assert "ROOST_RAY_OPEN_NETWORK" in finding.says


def test_a_head_that_is_not_there_is_told():
    *_, finding = examine_ray(RaySettings(address=f"127.0.0.1:{free_port()}", http_port=free_port()))
    assert (finding.part, finding.verdict) == ("ray", Verdict.FAIL)
    assert "ray start --head" in finding.do
