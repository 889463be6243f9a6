"""What all dashboards are built of: panels with a unit, a legend and a sentence of what they show, variables, and the frame.

Queries ask for series by their names alone: `roost_` is Roost's, and rules record over all gateways. `$__rate_interval` is
Grafana's: never shorter than four scrapes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
TAG = "roost"
WIDTH = 24
GREEN, YELLOW, RED = "green", "#EAB839", "red"


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked, and what its series are called: labels of the answer stand in double braces."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a value begins to be worth a look, and where it is bad; with `falling` it is the low values that are bad."""

    warn: float | None
    bad: float
    falling: bool = False

    def built(self) -> dashboard.ThresholdsConfig:
        marks = [(self.warn, YELLOW), (self.bad, RED)]
        if self.falling:
            marks = [(self.bad, YELLOW), (self.warn, GREEN)]
        steps = [models.Threshold(value=None, color=RED if self.falling else GREEN)]
        steps += [models.Threshold(value=value, color=color) for value, color in marks if value is not None]
        return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def rate(counter: str, *by: str, where: str = "") -> str:
    """How fast a counter grows, per second, summed over gateways and all labels but `by`."""
    return f"sum{_by(by)} (rate({counter}{_braced(where)}[$__rate_interval]))"


def quantile(part: float, histogram: str, *by: str, where: str = "") -> str:
    """The time that this part of all observations stayed below."""
    buckets = rate(f"{histogram}_bucket", *by, "le", where=where)
    return f"histogram_quantile({part}, {buckets})"


def total(gauge: str, *by: str, where: str = "") -> str:
    return f"sum{_by(by)} ({gauge}{_braced(where)})"


def largest(gauge: str, *by: str, where: str = "") -> str:
    """Where every gateway tells the same."""
    return f"max{_by(by)} ({gauge}{_braced(where)})"


def _by(labels: Sequence[str]) -> str:
    return f" by ({', '.join(labels)})" if labels else ""


def _braced(where: str) -> str:
    return f"{{{where}}}" if where else ""


Panel = timeseries.Panel | stat.Panel | table.Panel
_Kind = TypeVar("_Kind", timeseries.Panel, stat.Panel, table.Panel)


def graph(
    title: str,
    about: str,
    unit: str,
    *queries: Query,
    span: int = 8,
    stacked: bool = False,
    limits: Limits | None = None,
    least: float | None = 0,
    most: float | None = None,
) -> timeseries.Panel:
    """Lines over time, from zero. `limits` are drawn as dashed lines; `least` and `most` are the ends of the scale."""
    panel = _filled(timeseries.Panel(), title, about, unit, queries, span=span, height=8)
    panel.line_width(1).fill_opacity(60 if stacked else 10).show_points(looks.VisibilityMode.NEVER)
    panel.legend(
        common.VizLegendOptions()
        .display_mode(looks.LegendDisplayMode.LIST)
        .placement(looks.LegendPlacement.BOTTOM)
        .show_legend(show_legend=True)
    )
    panel.tooltip(common.VizTooltipOptions().mode(looks.TooltipDisplayMode.MULTI).sort(looks.SortOrder.DESCENDING))
    if stacked:
        panel.stacking(common.StackingConfig().mode(looks.StackingMode.NORMAL))
    if least is not None:
        panel.min(least)
    if most is not None:
        panel.max(most)
    if limits is not None:
        panel.thresholds(limits.built())
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(looks.GraphThresholdsStyleMode.DASHED))
    return panel


def number(
    title: str, about: str, unit: str, query: Query, *, span: int = 4, limits: Limits | None = None
) -> stat.Panel:
    """How it is now, with its course behind it; coloured where there are limits."""
    panel = _filled(stat.Panel(), title, about, unit, [query], span=span, height=4)
    panel.graph_mode(looks.BigValueGraphMode.AREA)
    panel.color_mode(looks.BigValueColorMode.VALUE if limits else looks.BigValueColorMode.NONE)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    if limits is not None:
        panel.thresholds(limits.built())
    return panel


def ranking(title: str, about: str, unit: str, query: Query, *, span: int = 8) -> table.Panel:
    """A table of what is largest now: a row for each series, a column for each label."""
    panel = _filled(table.Panel(), title, about, unit, [query], span=span, height=8, instant=True)
    panel.with_transformation(
        models.DataTransformerConfig(id_val="organize", options={"excludeByName": {"Time": True}})
    )
    panel.with_transformation(
        models.DataTransformerConfig(id_val="sortBy", options={"sort": [{"field": "Value", "desc": True}]})
    )
    return panel


def _filled(
    panel: _Kind,
    title: str,
    about: str,
    unit: str,
    queries: Sequence[Query],
    *,
    span: int,
    height: int,
    instant: bool = False,
) -> _Kind:
    panel.title(title).description(about).unit(unit).datasource(SOURCE).span(span).height(height)
    for place, query in enumerate(queries):
        target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(chr(ord("A") + place))
        target.datasource(SOURCE)
        if instant:
            target.instant().format(PromQueryFormat.TABLE)
        else:
            target.range()
        panel.with_target(target)
    return panel


def chosen(name: str, query: str, *, label: str, several: bool = False) -> dashboard.QueryVariable:
    """A variable that people choose from what there is: `query` is Grafana's `label_values(…)`."""
    variable = dashboard.QueryVariable(name).label(label).datasource(SOURCE)
    variable.query({"query": query, "refId": f"variable-{name}"}).sort(models.VariableSort.ALPHABETICAL_ASC)
    variable.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
    if several:
        everything = models.VariableOption(text="All", value="$__all")
        variable.multi(multi=True).include_all(include_all=True).all_value(".+").current(everything)
    return variable


def board(
    name: str,
    title: str,
    about: str,
    rows: Iterable[tuple[str, Sequence[Panel]]],
    *,
    variables: Sequence[dashboard.QueryVariable] = (),
    since: str = "now-6h",
) -> models.Dashboard:
    """The frame: identity, the choice of a data source and of `variables`, links to the others, and rows of panels."""
    made = dashboard.Dashboard(f"Roost / {title}").uid(f"roost-{name}").description(about).tags([TAG])
    made.readonly().timezone("utc").refresh("30s").time(since, "now").tooltip(models.DashboardCursorSync.CROSSHAIR)
    made.with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    for variable in variables:
        made.with_variable(variable)
    links = dashboard.DashboardLink("Roost").type(models.DashboardLinkType.DASHBOARDS).tags([TAG])
    made.link(links.as_dropdown(as_dropdown=True).include_vars(include_vars=True).keep_time(keep_time=True))
    number_of = 0
    for row, panels in rows:
        number_of += 1
        made.with_row(dashboard.Row(row).id(number_of))
        for panel in panels:
            number_of += 1
            made.with_panel(panel.id(number_of))
    return made.build()
