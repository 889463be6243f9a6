"""Two thousand damaged models through the real checker: each is taken or refused in words, and nothing else happens."""

import pytest

from fuzz_models import judge_all
from onnx_mutants import Mutant, models, mutants

SEED = 22


def test_the_same_seed_makes_the_same_files():
    first, longer = list(mutants(SEED, 50)), list(mutants(SEED, 60))
    assert longer[:50] == first
    assert list(mutants(SEED + 1, 50)) != first


async def test_the_files_that_mutants_are_made_from_are_all_taken_and_answer(tmp_path):
    """Else their mutants would fail for a reason of their own, and show nothing."""
    whole = [Mutant(n, name, made.SerializeToString()) for n, (name, made) in enumerate(models().items())]
    tally = await judge_all(whole, tmp_path)
    assert tally.faults == []
    assert dict(tally.codes) == {"taken": len(whole)}
    assert dict(tally.predictions) == {"answered": len(whole)}


@pytest.mark.timeout(900)
async def test_s9_damaged_models_are_taken_or_refused_and_harm_nobody(tmp_path):
    tally = await judge_all(mutants(SEED, 2_000), tmp_path)
    print(dict(tally.codes), dict(tally.predictions))
    assert tally.faults == []
    assert sum(tally.codes.values()) == 2_000
    assert len(tally.codes) >= 8, "the mutants reach many different checks"
    assert tally.codes["taken"] == sum(tally.predictions.values()) > 100
