"""What the three packages never do: read bytes as objects or run text as a program (S4).

ruff's S rules (S102, S301, S302, S307, S506) refuse most of it in CI; this also holds against a `noqa`.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("platform/roost_platform", "gateway/roost_gateway", "runtimes/roost_runtimes")
MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "cloudpickle",
    "dill",
    "joblib",
    "jsonpickle",
    "marshal",
    "shelve",
    "yaml",
    "torch",
}
CALLS = {"eval", "exec", "compile", "__import__"}


def found_in(source: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names} & MODULES
        elif isinstance(node, ast.ImportFrom):
            found |= {(node.module or "").partition(".")[0]} & MODULES
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found |= {node.func.id} & CALLS
        elif isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "shell") and not is_false(node.value):
            found.add(node.arg)
    return found


def is_false(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is False


@pytest.mark.parametrize("package", PACKAGES)
def test_s4_nothing_reads_objects_or_runs_text(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    bad = {str(file.relative_to(ROOT)): found for file in files if (found := found_in(file.read_text()))}
    assert not bad


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from yaml import load",
        "import os, dill.source",
        "eval(x)",
        "f(y, shell=True)",
        "np.load(f, allow_pickle=a)",
    ],
)
def test_the_search_finds_what_it_is_for(source):
    assert found_in(source)
