"""Which version a call that names none gets: rules, what sticks, turns. Pure."""

from collections import Counter

import pytest

from roost_gateway.access.choosing import Chooser
from roost_gateway.predict.headers import sort_headers
from roost_gateway.predict.paths import Paths
from roost_platform.domain.errors import InvalidRequest, NotFound
from roost_platform.domain.routing import MOST_ALIASES, MOST_RULES, Routing, Rule, Sticky, StickyBy
from roost_platform.domain.services import Revision
from roost_platform.domain.signatures import Signature

SIGNATURE = Signature((), ())
ONE, TWO, THREE = (Revision(f"iris-0000{n}", n, "0" * 64, 1, SIGNATURE) for n in (1, 2, 3))
NOBODY = sort_headers([])


def chooser(*shares: tuple[Revision, int], start: int = 0, **routing: object) -> Chooser:
    usable = {revision.version: revision for revision in (ONE, TWO, THREE)}
    return Chooser(shares, routing=Routing(**routing), usable=usable, start=lambda _: start)


@pytest.mark.parametrize("start", [0, 1, 50, 99])
def test_every_hundred_calls_are_shared_exactly_wherever_they_begin(start: int):
    made = chooser((ONE, 90), (TWO, 7), (THREE, 3), start=start)
    for _ in range(5):
        assert Counter(made.choose(NOBODY).version for _ in range(100)) == {1: 90, 2: 7, 3: 3}


def test_who_only_looks_uses_up_no_turn():
    made = chooser((ONE, 50), (TWO, 50))
    for version in (1, 2, 1):
        assert {made.choose(NOBODY, peek=True).version for _ in range(3)} == {version}
        assert made.choose(NOBODY).version == version


def test_turns_are_spread_and_not_in_a_row():
    made = chooser((ONE, 50), (TWO, 50))
    assert [made.choose(None).version for _ in range(6)] == [1, 2] * 3


@pytest.mark.parametrize(
    ("sticky", "header"),
    [
        (Sticky(StickyBy.HEADER, "x-user"), lambda n: (b"x-user", b"u%d" % n)),
        (Sticky(StickyBy.COOKIE, "sid"), lambda n: (b"cookie", b"a=b; sid=u%d; c=d" % n)),
        (Sticky(StickyBy.KEY), lambda n: (b"authorization", b"Bearer u%d" % n)),
    ],
    ids=["header", "cookie", "key"],
)
def test_a_caller_sticks_and_the_shares_hold(sticky: Sticky, header):
    made = chooser((ONE, 75), (TWO, 25), sticky=sticky)
    callers = [sort_headers([header(n)]) for n in range(2000)]
    first = [made.choose(caller).version for caller in callers]
    assert [made.choose(caller).version for caller in callers] == first
    assert [chooser((ONE, 75), (TWO, 25), start=7, sticky=sticky).choose(c).version for c in callers] == first
    expected = {1: 1500, 2: 500}
    assert sum((first.count(n) - e) ** 2 / e for n, e in expected.items()) < 10.83  # chi-square, 1 degree, 0.1 %


def test_a_key_is_the_same_however_its_header_is_written():
    made = chooser((ONE, 50), (TWO, 50), sticky=Sticky(StickyBy.KEY))
    for n in range(20):
        written = [b"Bearer k%d" % n, b"bearer k%d" % n, b"Bearer  k%d" % n]
        assert len({made.choose(sort_headers([(b"authorization", value)])).version for value in written}) == 1


def test_who_does_not_say_who_it_is_gets_the_next_turn():
    made = chooser((ONE, 50), (TWO, 50), sticky=Sticky(StickyBy.COOKIE, "sid"))
    strangers = [NOBODY, sort_headers([(b"cookie", b"other=1")]), sort_headers([(b"cookie", b"sid=")])] * 2
    assert [made.choose(caller).version for caller in strangers] == [1, 2] * 3


def test_a_rule_goes_before_what_sticks_and_the_first_one_that_matches_decides():
    rules = (Rule("x-tester", "yes", 3), Rule("x-team", "blue", 2), Rule("x-team", "gone", 9))
    made = chooser((ONE, 100), rules=rules, sticky=Sticky(StickyBy.KEY))
    key = (b"authorization", b"Bearer k")
    for headers, version in (
        ([key], 1),
        ([key, (b"x-tester", b"yes")], 3),
        ([key, (b"x-tester", b"no")], 1),
        ([key, (b"x-team", b"blue"), (b"x-tester", b"yes")], 3),
        ([key, (b"x-team", b"blue")], 2),
        ([key, (b"x-team", b"gone")], 1),  # a version that is not served
    ):
        assert made.choose(sort_headers(headers)).version == version, headers


def test_routing_survives_the_database():
    routing = Routing(
        sticky=Sticky(StickyBy.HEADER, "x-user"),
        rules=(Rule("x-tester", "a b", 2),),
        aliases=(("candidate", 2), ("stable", 1)),
    )
    assert Routing.from_json(routing.to_json()) == routing
    assert Routing.from_json({}) == Routing()
    assert routing.with_alias("stable", 2).alias("stable") == 2
    assert routing.with_alias("stable", None).aliases == (("candidate", 2),)


def test_a_header_that_only_begins_like_one_that_is_kept_back_is_taken():
    assert [Rule(name, "1", 1).header for name in ("tester", "hosting", "cookie-class")] == [
        "tester",
        "hosting",
        "cookie-class",
    ]


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Sticky(StickyBy.KEY, "x"), "sticky"),
        (lambda: Sticky(StickyBy.HEADER), "sticky"),
        (lambda: Sticky(StickyBy.HEADER, "X-User"), "sticky"),
        (lambda: Sticky(StickyBy.HEADER, "authorization"), "sticky"),
        (lambda: Sticky(StickyBy.HEADER, "te"), "sticky"),
        (lambda: Sticky(StickyBy.COOKIE, "a;b"), "sticky"),
        (lambda: Rule("x-roost-version", "1", 1), "rules"),
        (lambda: Rule("x-request-id", "1", 1), "rules"),
        (lambda: Rule("upgrade", "1", 1), "rules"),
        (lambda: Rule("content-type", "1", 1), "rules"),
        (lambda: Rule("x tester", "1", 1), "rules"),
        (lambda: Rule("x-tester", "", 1), "rules"),
        (lambda: Rule("x-tester", "é", 1), "rules"),
        (lambda: Routing(rules=(Rule("x-tester", "1", 1),) * (MOST_RULES + 1)), "rules"),
        (lambda: Routing(aliases=tuple((f"a{n}", 1) for n in range(MOST_ALIASES + 1))), "alias"),
        (lambda: Routing().with_alias("1st", 1), "alias"),
        (lambda: Routing().with_alias("Stable", 1), "alias"),
        (lambda: Routing().with_alias("infer", 1), "alias"),
        (lambda: Routing().with_alias("ready", 1), "alias"),
        (lambda: Routing().with_alias("v3", 1), "alias"),
    ],
)
def test_what_cannot_be_is_refused_by_its_field(make, field: str):
    with pytest.raises(InvalidRequest) as caught:
        make()
    assert caught.value.field == field


def test_an_alias_in_a_path_is_not_passed_on_to_the_replica():
    target = Paths().parse("/t/acme/v2/models/versions/versions/stable/infer")
    assert (target.model, target.version, target.inner) == ("versions", "stable", "/v2/models/versions/infer")
    assert Paths().parse("/t/acme/v2/models/iris/versions/12").version == 12
    assert Paths().parse("/t/acme/v2/models/iris/versions/inference/ready").version == "inference"
    for path in (
        "versions/1st",
        "versions/Stable",
        "versions/0",
        "versions/a--",
        "versions/",
        "versions/ready",
        "versions/infer",
    ):
        with pytest.raises(NotFound):
            Paths().parse(f"/t/acme/v2/models/iris/{path}/infer")
