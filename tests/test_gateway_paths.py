"""Paths of the prediction path: what each asks for, and that nothing else gets through (S3, P11)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost_gateway.predict.paths import Ask, Paths
from roost_platform.domain.errors import NotFound


@pytest.mark.parametrize(
    ("path", "ask", "model", "version"),
    [
        ("", Ask.ALIVE, "", None),
        ("/", Ask.ALIVE, "", None),
        ("/v2", Ask.SERVER, "", None),
        ("/v2/", Ask.SERVER, "", None),
        ("/v2/health/live", Ask.LIVE, "", None),
        ("/v2/health/ready", Ask.READY, "", None),
        ("/v2/models", Ask.MODELS, "", None),
        ("/v1/models", Ask.V1_MODELS, "", None),
        ("/v2/models/iris", Ask.METADATA, "iris", None),
        ("/v2/models/iris/ready", Ask.MODEL_READY, "iris", None),
        ("/v2/models/iris/infer", Ask.INFER, "iris", None),
        ("/v2/models/iris/versions/3", Ask.METADATA, "iris", 3),
        ("/v2/models/iris/versions/3/ready", Ask.MODEL_READY, "iris", 3),
        ("/v2/models/iris/versions/999999999/infer", Ask.INFER, "iris", 999_999_999),
        ("/v1/models/iris", Ask.V1_MODEL, "iris", None),
        ("/v1/models/iris:predict", Ask.INFER, "iris", None),
        ("/v2/models/versions/infer", Ask.INFER, "versions", None),
        ("/v2/models/" + "a" * 63, Ask.METADATA, "a" * 63, None),
    ],
)
def test_every_path_and_what_it_asks_for(path, ask, model, version):
    target = Paths().parse(f"/t/acme{path}")
    assert (target.ask, target.tenant, target.inner) == (ask, "acme", path)
    assert (target.model, target.version) == (model, version)


@pytest.mark.parametrize(
    "path",
    [
        "/t/",
        "/t//v2",
        "/t/acme/v2/models/",
        "/t/acme/v2/models//infer",
        "/t/acme/v2/models/iris/",
        "/t/acme/v2/models/iris/infer/",
        "/t/acme/v2/models/iris/infer\n",
        "/t/acme/v2/models/iris/versions/0/infer",
        "/t/acme/v2/models/iris/versions/01/infer",
        "/t/acme/v2/models/iris/versions/1000000000/infer",
        "/t/acme/v2/models/iris/versions/1.5/infer",
        "/t/acme/v2/models/iris/versions/\u0661/infer",  # an Arabic digit
        "/t/acme/v2/models/iris/versions/infer",
        "/t/acme/v2/models/Iris/infer",
        "/t/acme/v2/models/-iris/infer",
        "/t/acme/v2/models/iris-/infer",
        "/t/acme/v2/models/" + "a" * 64,
        "/t/acme/v2/models/ir.is/infer",
        "/t/acme/v2/models/../infer",
        "/t/acme/v2/models/iris%2finfer",
        "/t/acme/v2/models/..\\x/infer",
        "/t/acme/v2/models/iris\x00/infer",
        "/t/acme/../other/v2",
        "/t/acme//v2",
        "/t/acme/./v2",
        "/t/ACME/v2",
        "/t/acme/v1/models/iris:explain",
        "/t/acme/v1/models/iris/infer",
        "/t/acme/v2/models/iris:predict",
        "/t/acme/v3",
        "/t/acme/metrics",
        "/t/acme/v2/health",
        "//t/acme/v2",
    ],
)
def test_s3_nothing_else_gets_through(path):
    with pytest.raises(NotFound):
        Paths().parse(path)


@given(st.text(st.sampled_from("/tacme.%v2models\\\n:0 é"), max_size=40))
def test_what_gets_through_can_be_put_together_again(text):
    path = f"/t/acme{text}"
    try:
        target = Paths().parse(path)
    except NotFound:
        return
    assert f"/t/{target.tenant}{target.inner}" == path
    assert not set(path) & set(".%\\\n é")


def test_what_is_remembered_is_bounded_and_right():
    paths = Paths()
    for number in range(25_000):
        assert paths.parse(f"/t/acme/v2/models/m{number}/infer").model == f"m{number}"
    assert paths.parse("/t/acme/v2/models/m1/infer") is paths.parse("/t/acme/v2/models/m1/infer")
    assert len(paths._known) <= 10_000
