"""FOCUS' own validator over files that Roost made: `python tests/focus_validation.py`.

It needs Python 3.12 or newer and versions of libraries that nothing else here wants, so it gets an environment of its own
(`.work/focus`), made when it is not there. Its exit status is 0 even when rules fail: its totals are read instead.

One rule may fail, and must: InvoiceId-C-004-C wants InvoiceId to be null, unconditionally, and InvoiceId-C-005-C wants
the opposite. No file can please both; ours has the id of the statement in every row.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from billing_documents import everything, note, statement
from rated_statements import example
from roost_platform.billing.exports import Issuer, render_all
from roost_platform.billing.exports.focus_columns import CRITERIA
from roost_platform.billing.statements import Kind, Statement, Status

ALLOWED = frozenset({"InvoiceId-C-004-C"})
ENVIRONMENT = Path(__file__).parent.parent / ".work" / "focus"
_PINS = ("focus-validator==2.2.1", "numpy<2", "pandas<3", "duckdb<2", "pyarrow<23")
"""The last refuses the first numpy otherwise."""
_TOTALS = re.compile(r"Total: (\d+) \| Pass: (\d+) \| Fail: (\d+) \| Skipped: (\d+)")
_FAILED = re.compile(r"^\S+ (\S+): FAIL\b", re.MULTILINE)
_LIMIT_S = 300


@dataclass(frozen=True, slots=True)
class Findings:
    total: int
    passed: int
    failed: frozenset[str]
    """Rules by id."""
    skipped: int
    """What the validator cannot judge, or is not asked to."""


def files() -> dict[str, Sequence[Statement]]:
    """What is put to the validator, by name."""
    several = [everything(), everything("beta", Status.DRAFT, more=40), everything("gamma", Status.OPEN)]
    return {
        "one tenant": [everything()],
        "rated usage of three tenants": [example(), example("beta"), example("gamma")],
        "several tenants": several,
        "notes": [everything(), note(Kind.CREDIT_NOTE, "12.50"), note(Kind.DEBIT_NOTE, "3.00")],
        "a tenant without usage among others": [statement([], tenant="quiet"), *several],
    }


def validator_in(environment: Path) -> Path | None:
    """The validator's program, if this virtual environment has it."""
    program = environment / "bin" / "focus-validator"
    return program if program.exists() else None


def validate(program: Path, body: bytes) -> Findings:
    """Raises ValueError when the validator says nothing that can be read."""
    (packages,) = (program.parent.parent / "lib").glob("python3*/site-packages")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "focus.csv"
        file.write_bytes(body)
        said = subprocess.run(
            [
                program, "--block-download", "--validate-version", "1.2",
                "--applicability-criteria", ",".join(CRITERIA), "--data-file", file,
            ],
            cwd=packages,  # it opens its list of currencies relative to the working directory
            capture_output=True, text=True, check=True, timeout=_LIMIT_S,
        ).stdout  # fmt: skip
    return read(said)


def read(said: str) -> Findings:
    """What the validator's output comes to. Raises ValueError when its totals are not there or contradict its list."""
    totals, failed = _TOTALS.search(said), frozenset(_FAILED.findall(said))
    if totals is None:
        raise ValueError(f"the validator did not say its totals: {said[-500:]}")
    total, passed, failures, skipped = map(int, totals.groups())
    if failures != len(failed) or total != passed + failures + skipped or not passed:
        raise ValueError(f"the validator's totals are not those of its list: {totals[0]}, {sorted(failed)}")
    return Findings(total, passed, failed, skipped)


def _install(environment: Path, python: str | None) -> Path:
    python = python or next((name for name in map(_newer, (14, 13, 12)) if name), None)
    if python is None:
        sys.exit("FOCUS' validator needs Python 3.12 or newer, and no such python3 runs here: name one by --python")
    print(f"installing {_PINS[0]} into {environment} with {python}")
    subprocess.run([python, "-m", "venv", environment], check=True)
    subprocess.run([environment / "bin" / "pip", "install", "--quiet", *_PINS], check=True)
    return environment / "bin" / "focus-validator"


def _newer(minor: int) -> str | None:
    """That Python's command, if it runs."""
    try:
        subprocess.run([f"python3.{minor}", "--version"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"python3.{minor}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--environment", type=Path, default=ENVIRONMENT, help="a virtual environment with the validator"
    )
    parser.add_argument(
        "--python", help="what to make it with: Python 3.12 or newer; default: python3.14, 3.13 or 3.12"
    )
    arguments = parser.parse_args()
    environment = arguments.environment.absolute()
    program = validator_in(environment) or _install(environment, arguments.python)
    worst = 0
    for name, statements in files().items():
        body = render_all(statements, "focus", name="check", issuer=Issuer(region="eu-1")).body
        found = validate(program, body)
        rows = body.count(b"\r\n") - 1
        print(
            f"{name}: {rows} rows; {found.total} rules, {found.passed} passed, {found.skipped} not judged, "
            f"failed: {', '.join(sorted(found.failed)) or 'none'}"
        )
        worst |= found.failed != ALLOWED
    print("as it should be" if not worst else f"only {', '.join(ALLOWED)} may fail, and must")
    return worst


if __name__ == "__main__":
    sys.exit(main())
