from roost_platform.engines.local.setbacks import FIRST_BACKOFF_S, MAX_BACKOFF_S, Setbacks


def test_each_failure_doubles_the_wait_up_to_a_bound() -> None:
    setbacks = Setbacks()
    waits = []
    for _ in range(10):
        setbacks.add("Exited", "it exited", now=100.0)
        waits.append(setbacks.wait_s(100.0))
    assert waits[:3] == [FIRST_BACKOFF_S, 2 * FIRST_BACKOFF_S, 4 * FIRST_BACKOFF_S]
    assert waits[-1] == MAX_BACKOFF_S
    assert setbacks.last == ("Exited", "it exited")


def test_the_wait_passes_with_time_and_ends_with_success() -> None:
    setbacks = Setbacks()
    setbacks.add("Exited", "it exited", now=0.0)
    assert setbacks.wait_s(FIRST_BACKOFF_S / 2) == FIRST_BACKOFF_S / 2
    assert setbacks.wait_s(FIRST_BACKOFF_S) == 0
    setbacks.clear()
    assert (setbacks.last, setbacks.wait_s(0.0)) == (None, 0)


def test_only_the_first_end_is_forgiven() -> None:
    setbacks = Setbacks()
    assert setbacks.forgive_once()
    assert not setbacks.forgive_once()
    setbacks.add("Exited", "it exited", now=0.0)
    assert setbacks.wait_s(0.0) == 2 * FIRST_BACKOFF_S
