"""Plans for one model: single cases, and any history of wishes played against a Knative of a few lines."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from knative_engine_parts import make_revision, make_service
from roost_platform.domain.services import Readiness, Revision, Service, TrafficTarget
from roost_platform.engines.knative.objects import Target
from roost_platform.engines.knative.reconcile import Plan, SeenService, Variant, covers, plan

A, B, C = make_revision(1), make_revision(2), make_revision(3)
KEPT = 3


def current(service: Service, settings: int = 0) -> dict[str, str]:
    return {r.name: f"{r.name}-{settings}" for r in service.revisions}


def variant(
    revision: Revision, ready: Readiness = Readiness.TRUE, *, settings: int = 0, spent: bool = False
) -> Variant:
    return Variant(f"{revision.name}-{settings}", revision.name, ready, f"{settings}", spent)


def planned(service: Service, *variants: Variant, seen: SeenService | None = None, settings: int = 0) -> Plan:
    return plan(
        service,
        current=current(service, settings),
        variants=variants,
        seen=seen or SeenService(),
        revisions_kept=KEPT,
    )


def proven(revision: Revision) -> Revision:
    return make_revision(int(revision.name[-5:]), proven=True)


def test_nothing_wished_needs_no_service() -> None:
    assert planned(make_service()) == Plan(None)


def test_missing_revisions_are_made_one_by_one_those_with_traffic_first() -> None:
    service = make_service(A, B, C, to=B)
    assert planned(service).template == B
    assert planned(service, variant(B)).template == A
    assert planned(service, variant(B), variant(A, Readiness.UNKNOWN)).template == C


def test_only_what_is_ready_gets_a_route() -> None:
    result = planned(make_service(A, B, to=A), variant(A), variant(B, Readiness.UNKNOWN))
    assert result.targets == (Target("iris-00001-0", "v1", 100),)


def test_a_failed_revision_does_not_stay_the_template() -> None:
    assert planned(make_service(A, B, to=A), variant(A), variant(B, Readiness.FALSE)).template == A


def test_the_older_variant_serves_until_the_one_of_todays_settings_is_ready() -> None:
    service = make_service(proven(A), to=A)
    old = variant(A)
    result = planned(service, old, settings=1)
    assert (result.template, result.targets[0].revision_name, result.delete) == (proven(A), old.name, ())
    result = planned(service, old, variant(A, Readiness.UNKNOWN, settings=1), settings=1)
    assert (result.targets[0].revision_name, result.delete) == (old.name, ())
    new = variant(A, settings=1)
    assert planned(service, old, new, settings=1).targets[0].revision_name == new.name
    assert planned(service, old, new, settings=1).delete == (old.name,)
    routed = SeenService(settled=True, routed={old.name: "v1"})
    assert planned(service, old, new, settings=1, seen=routed).delete == ()


def test_idle_revisions_are_not_made_anew_for_new_settings() -> None:
    service = make_service(proven(A), proven(B), to=B)
    result = planned(service, variant(A), variant(B, settings=1), settings=1)
    assert result.template == proven(B)
    assert {t.revision_name for t in result.targets} == {"iris-00001-0", "iris-00002-1"}


def test_one_that_fails_later_keeps_its_route_until_another_change() -> None:
    service = make_service(proven(A), proven(B), to=A)
    before = SeenService(
        settled=True,
        traffic=(Target("iris-00001-0", "v1", 100), Target("iris-00002-0", "v2", 0)),
        routed={"iris-00001-0": "v1", "iris-00002-0": "v2"},
    )
    failed, works = variant(A, Readiness.FALSE), variant(B)
    assert {t.tag for t in planned(service, failed, works, seen=before).targets} == {"v1", "v2"}
    more = make_service(proven(A), proven(B), C, to=A)
    assert {t.tag for t in planned(more, failed, works, variant(C), seen=before).targets} == {"v2", "v3"}


def test_one_that_failed_for_good_and_has_no_route_is_made_anew() -> None:
    service = make_service(proven(A), proven(B), to=B)
    result = planned(service, variant(A, Readiness.FALSE, spent=True), variant(B))
    assert result.delete == ("iris-00001-0",)
    assert planned(service, variant(B)).template == proven(A)


def test_a_refused_template_does_not_hold_up_the_others() -> None:
    service = make_service(A, B, to=A)
    result = plan(
        service,
        current=current(service),
        variants=[variant(A)],
        seen=SeenService(),
        revisions_kept=KEPT,
        refused=frozenset({"iris-00002-0"}),
    )
    assert result.template == A


def test_a_runtime_that_is_not_offered_any_more_serves_on() -> None:
    service = make_service(proven(A), proven(B), to=A)
    result = plan(
        service,
        current={B.name: "iris-00002-0"},
        variants=[variant(A), variant(B)],
        seen=SeenService(),
        revisions_kept=KEPT,
    )
    assert (result.template, result.delete) == (proven(B), ())
    assert [t.percent for t in result.targets] == [100, 0]


def test_covers() -> None:
    assert covers({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}})
    assert not covers({"a": {"b": 2}}, {"a": {"b": 1}})
    assert not covers(None, {"a": 1})


@dataclass
class Knative:
    """Makes the template's revision, moves traffic when all its targets are ready, and deletes what it is told to."""

    broken: set[str]
    revisions: dict[str, tuple[str, Readiness]] = field(default_factory=dict)
    traffic: tuple[Target, ...] = ()
    routed: dict[str, str] = field(default_factory=dict)

    def seen(self) -> SeenService:
        return SeenService(settled=True, traffic=self.traffic, routed=self.routed)

    def variants(self) -> list[Variant]:
        return [
            Variant(name, revision, ready, name[-1], spent=ready is Readiness.FALSE)
            for name, (revision, ready) in self.revisions.items()
        ]

    def follow(self, result: Plan, name: str) -> None:
        assert result.template is not None
        assert len({t.tag for t in result.targets}) == len(result.targets)
        assert sum(t.percent for t in result.targets) <= 100
        self.traffic = result.targets or (Target(name, "v0", 100),)
        ready = {n for n, (_, r) in self.revisions.items() if r is Readiness.TRUE}
        if {t.revision_name for t in self.traffic} <= ready:
            self.routed = {t.revision_name: t.tag for t in self.traffic}
        for gone in result.delete:
            assert gone != name
            assert gone not in {t.revision_name for t in self.traffic}
            assert gone not in self.routed
            del self.revisions[gone]
        self.revisions.setdefault(name, (result.template.name, Readiness.UNKNOWN))

    def settle(self) -> None:
        for name, (revision, ready) in self.revisions.items():
            if ready is Readiness.UNKNOWN:
                works = Readiness.FALSE if revision in self.broken else Readiness.TRUE
                self.revisions[name] = (revision, works)


def _play(knative: Knative, service: Service, settings: int) -> None:
    for _ in range(40):
        names = current(service, settings)
        result = plan(service, current=names, variants=knative.variants(), seen=knative.seen(), revisions_kept=KEPT)
        assert result.template is not None
        before = (dict(knative.revisions), knative.traffic, dict(knative.routed))
        knative.follow(result, names[result.template.name])
        knative.settle()
        if before == (knative.revisions, knative.traffic, knative.routed):
            return


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[Service, int]]:
    """Wishes as deployments make them: revisions come, are proven, get traffic, lose it, are dropped."""
    history: list[tuple[Service, int]] = []
    ready: list[Revision] = []
    settings = 0
    for generation in range(1, draw(st.integers(2, 8))):
        new = make_revision(generation)
        traffic = draw(st.sampled_from(ready)) if ready else None
        settings += draw(st.integers(0, 3)) == 0
        history.append((make_service(*ready, new, to=traffic), settings))
        ready.append(proven(new))
        chosen = draw(st.sampled_from(ready))
        history.append((make_service(*ready, to=chosen), settings))
    return history


@given(histories())
def test_every_history_ends_with_what_is_wished_and_nothing_else(history: list[tuple[Service, int]]) -> None:
    knative = Knative(broken=set())
    for service, settings in history:
        _play(knative, service, settings)
        names = current(service, settings)
        for target in service.traffic:
            serving = next(t for t in knative.traffic if t.revision_name == names[target.revision])
            assert serving.percent == target.percent == 100
        wished = {r.name for r in service.revisions}
        made = [revision for revision, _ in knative.revisions.values()]
        assert set(made) <= wished
        assert len(made) == len(set(made))
        assert len(made) <= KEPT + 2
        assert set(knative.routed) == set(knative.revisions)


@given(histories(), st.integers(1, 8))
def test_a_revision_that_never_works_keeps_nothing_else_from_working(
    history: list[tuple[Service, int]], broken: int
) -> None:
    name = make_revision(broken).name
    knative = Knative(broken={name})
    for wish, settings in history:
        # Deployments give traffic to what was ready only, and forget what failed when it did.
        alive = tuple(r for r in wish.revisions if r.name != name or not r.proven)
        traffic = tuple(t for t in wish.traffic if t.revision != name)
        service = Service(wish.key, alive, traffic, wish.scaling)
        if not alive:
            continue
        _play(knative, service, settings)
        tags = {t.tag for t in knative.traffic if knative.revisions[t.revision_name][1] is Readiness.TRUE}
        works = [r for r in service.revisions if r.name != name]
        assert not works or tags
        for target in traffic:
            assert TrafficTarget(target.revision, 100) == target
            assert any(t.revision_name == f"{target.revision}-{settings}" for t in knative.traffic)
