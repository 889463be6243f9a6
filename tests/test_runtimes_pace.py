"""Where a model runs: on the loop or in threads, from run times alone."""

from roost_runtimes.pace import INLINE_BELOW_US, Pace


def test_a_known_time_decides_at_once():
    assert Pace(INLINE_BELOW_US - 1).inline
    assert not Pace(INLINE_BELOW_US).inline


def test_an_unknown_model_moves_onto_the_loop_after_quick_runs():
    pace = Pace()
    for _ in range(20):
        pace.observe(30)
    assert pace.inline
    assert pace.run_us == 30


def test_one_interrupted_run_decides_nothing():
    pace = Pace(30)
    pace.observe(20 * INLINE_BELOW_US)
    assert pace.inline
    assert pace.run_us < INLINE_BELOW_US


def test_a_model_that_turns_slow_leaves_the_loop_for_good():
    pace = Pace(30)
    for _ in range(10):
        pace.observe(2 * INLINE_BELOW_US)
    assert not pace.inline
    for _ in range(1000):
        pace.observe(30)
    assert not pace.inline


def test_one_very_slow_run_is_enough():
    pace = Pace(30)
    pace.observe(500 * INLINE_BELOW_US)
    assert not pace.inline


def test_an_unknown_model_with_slow_runs_stays_in_threads():
    pace = Pace()
    for _ in range(50):
        for run_us in (30, 30, 5 * INLINE_BELOW_US):
            pace.observe(run_us)
    for _ in range(50):
        pace.observe(30)
    assert not pace.inline
