"""What hostile structures may cost: two seconds of a processor and half a gigabyte, whatever else the machine does."""

import pytest

import hostile_models as hostile
from roost_platform.domain.errors import ModelRejected
from roost_platform.registry.checking import Checker, CheckLimits

CASES = {
    "graphs-200-deep": (lambda: hostile.nested(200), "too_deep"),
    "graphs-20000-deep": (lambda: hostile.nested(20_000), "too_deep"),
    "functions-in-a-ring": (lambda: hostile.recursive_functions().SerializeToString(), "invalid_graph"),
    "functions-that-double": (lambda: hostile.doubling_functions().SerializeToString(), "invalid_graph"),
    "a-long-chain-of-functions": (lambda: hostile.function_chain(5_000).SerializeToString(), "too_deep"),
    "a-million-nodes": (lambda: hostile.many_nodes(1_000_000), "invalid_graph"),
    "a-huge-constant": (lambda: hostile.memory_bomb().SerializeToString(), "out_of_memory"),
}


@pytest.mark.parametrize("case", CASES)
async def test_s12_structures_that_explode_are_refused_within_the_limits(tmp_path, case):
    made, code = CASES[case]
    (tmp_path / "model").write_bytes(made())
    (tmp_path / "baked").mkdir()
    checker = Checker(limits=CheckLimits(memory_bytes=2**29, cpu_s=2))
    try:
        with pytest.raises(ModelRejected) as raised:
            await checker.check(tmp_path / "model", tmp_path / "baked")
    finally:
        checker.close()
    assert raised.value.code == code
