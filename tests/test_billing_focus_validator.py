"""The FOCUS export before FOCUS' own validator, where that is installed; everywhere, how its answer is read."""

from pathlib import Path

import pytest

from focus_validation import ALLOWED, ENVIRONMENT, Findings, files, read, validate, validator_in
from roost_platform.billing.exports import render_all

_SAID = """
=== Validation Results ===
Total: 4 | Pass: 2 | Fail: 1 | Skipped: 1
⏭️ AvailabilityZone-C-000-C: SKIPPED  (violations=0, reason=Rule skipped)
❌ InvoiceId-C-004-C: FAIL  (violations=54, msg=InvoiceId MUST be NULL., 7.3ms)
"""


def _program() -> Path:
    program = validator_in(ENVIRONMENT)
    if program is None:
        pytest.skip(
            "focus-validator needs Python 3.12 and libraries of its own: `make focus` installs it into .work/focus; "
            "test_billing_focus.py checks columns, values and arithmetic without it"
        )
    return program


def test_the_validator_passes_every_rule_but_the_one_that_contradicts_another():
    everyone = [statement for statements in files().values() for statement in statements]
    found = validate(_program(), render_all(everyone, "focus", name="check").body)
    assert found.failed == ALLOWED
    assert found.passed >= 250


def test_the_validator_fails_a_file_that_is_wrong():
    body = render_all(files()["one tenant"], "focus", name="check").body.replace(b"Usage-Based", b"", 1)
    assert validate(_program(), body).failed > ALLOWED


def test_totals_are_read_from_what_it_says():
    assert read(_SAID) == Findings(total=4, passed=2, failed=ALLOWED, skipped=1)


@pytest.mark.parametrize(
    "said",
    [
        "",
        "Traceback (most recent call last):",
        _SAID.replace("Fail: 1", "Fail: 2"),  # a failed rule that is not in the list
        _SAID.replace("Total: 4", "Total: 5"),
        "Total: 0 | Pass: 0 | Fail: 0 | Skipped: 0",  # nothing was judged
    ],
)
def test_what_cannot_be_read_is_no_success(said):
    with pytest.raises(ValueError, match="the validator"):
        read(said)
