"""The page for people at /docs, as a browser without internet gets it."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from urllib3 import PoolManager

from roost_process import RoostProcess


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: dict[str, str | None] = {}
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.update(attrs)

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with RoostProcess(tmp_path_factory.mktemp("docs")) as server:
        yield server
        assert server.stop() == 0


def test_the_page_lists_every_operation_and_loads_nothing(server):
    pool = PoolManager()
    answer = pool.request("GET", f"{server.url}/docs")
    assert answer.status == 200
    page = answer.data.decode()
    reader = Reader()
    reader.feed(page)
    document = pool.request("GET", f"{server.url}/openapi.json").json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert f"{method.upper()} {path} {operation['summary']}" in reader.text
    assert not {"script", "link", "img", "iframe", "object", "base", "form"} & set(reader.tags)
    assert not {name for name in reader.attributes if name.startswith("on") or name in ("style", "src")}
    assert reader.attributes["href"] == "openapi.json"


def test_the_pages_policy_allows_its_own_style_and_nothing_else(server):
    answer = PoolManager().request("GET", f"{server.url}/docs")
    style = re.search(rb"<style>(.*)</style>", answer.data, re.DOTALL)[1]
    own = base64.b64encode(hashlib.sha256(style).digest()).decode()
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["style-src"] == f"'sha256-{own}'"
    assert "script-src" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/docs/oauth2-redirect", "/redoc"])
def test_there_is_no_other_page(server, path):
    answer = PoolManager().request("GET", f"{server.url}{path}")
    assert (answer.status, answer.json()["code"]) == (404, "not_found")
