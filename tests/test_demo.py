"""`make demo`: the example that shows the product end to end, run as it stands."""

import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parent.parent / "examples" / "demo.py"


@pytest.mark.timeout(240)  # half a minute, on a machine that has nothing else to do
def test_the_demo_succeeds_and_shows_sleep_waking_and_the_bill():
    result = subprocess.run([sys.executable, DEMO], check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "processes serving a model: none" in result.stdout
    assert result.stdout.count("25 answers, all right") == 2
    assert "52 calls made, 52 metered, 52 on the statement." in result.stdout
    assert "All right" in result.stdout
