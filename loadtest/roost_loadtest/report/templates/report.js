// Draws the charts of the page from its data: one cursor and one zoom for all of them. Without it there are the still pictures.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const seconds = Array.from({ length: Math.ceil(data.length / data.step) }, (_, n) => n * data.step);
  const HEIGHT = 210, LOW = 140, AXIS = 62;
  const DASHES = { dashed: [6, 4], dotted: [2, 3] };
  const where = document.getElementById("at"), whole = document.getElementById("all");
  let plots = [], zoomed = null, moving = false;

  const moment = (value) => {
    const all = Math.floor(value), two = (n) => String(n).padStart(2, "0");
    const hours = Math.floor(all / 3600), minutes = Math.floor(all / 60) % 60;
    return hours ? `${hours}:${two(minutes)}:${two(all % 60)}` : `${minutes}:${two(all % 60)}`;
  };
  const digits = (value, n) => String(Number(value.toPrecision(n)));
  const milliseconds = (value) => value >= 1000 ? `${digits(value / 1000, 3)} s`
    : value >= 0.01 || !value ? `${digits(value, 3)} ms` : `${digits(value * 1000, 2)} µs`;
  const share = (nines) => `${digits(100 * (1 - 10 ** -nines), 7)} %`;
  const shown = (unit, value) => value == null ? "-"
    : unit === "ms" ? milliseconds(value) : Number(value.toPrecision(4)).toLocaleString("en");

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const faint = (hex, part) => `${hex}${Math.round(part * 255).toString(16).padStart(2, "0")}`;

  // Bars stand on those before them; what is written beside the cursor stays what each line is by itself.
  const stacked = (lines) => {
    let below = null;
    return lines.map((line) => {
      if (line.look !== "bars") return line.values;
      below = line.values.map((value, n) => (value || 0) + (below ? below[n] : 0));
      return below.map((value, n) => line.values[n] ? value : null);
    });
  };

  const upright = (plot, x, dash, ink) => {
    const at = Math.round(plot.valToPos(x, "x", true)) + 0.5, { left, top, width, height } = plot.bbox;
    if (at < left || at > left + width) return null;
    const pen = plot.ctx;
    pen.beginPath();
    pen.strokeStyle = ink;
    pen.lineWidth = devicePixelRatio;
    pen.setLineDash(dash.map((n) => n * devicePixelRatio));
    pen.moveTo(at, top);
    pen.lineTo(at, top + height);
    pen.stroke();
    return at;
  };

  const background = (chart) => (plot) => {
    const pen = plot.ctx, { left, top, width, height } = plot.bbox;
    pen.save();
    pen.beginPath();
    pen.rect(left, top, width, height);
    pen.clip();
    pen.fillStyle = faint(colour("orange"), 0.16);
    for (const [from, to] of chart.bands) {
      const start = plot.valToPos(from, "x", true);
      pen.fillRect(start, top, Math.max(1, plot.valToPos(to, "x", true) - start), height);
    }
    pen.restore();
  };

  const foreground = (chart, first) => (plot) => {
    const pen = plot.ctx, { left, top, width, height } = plot.bbox, size = devicePixelRatio;
    const soft = colour("soft"), ink = colour("ink");
    pen.save();
    pen.font = `${11 * size}px system-ui, sans-serif`;
    if (!chart.xs.length) {
      let free = -1;
      const event = data.marks.length > 40 ? faint(soft, 0.4) : soft;
      for (const [at, , number] of data.marks) {
        const x = upright(plot, at, number === null ? [] : [2, 4], number === null ? faint(soft, 0.45) : event);
        if (first && x !== null && number !== null && x > free) {
          pen.fillStyle = soft;
          pen.textAlign = "center";
          pen.textBaseline = "bottom";
          pen.fillText(number, x, top - 2 * size);
          free = x + 16 * size;
        }
      }
    }
    for (const [value, name] of chart.levels) {
      const y = Math.round(plot.valToPos(value, "y", true)) + 0.5;
      if (y < top || y > top + height) continue;
      pen.beginPath();
      pen.strokeStyle = ink;
      pen.lineWidth = 1.2 * size;
      pen.setLineDash([9, 3, 2, 3].map((n) => n * size));
      pen.moveTo(left, y);
      pen.lineTo(left + width, y);
      pen.stroke();
      pen.textAlign = "left";
      pen.textBaseline = "bottom";
      pen.lineWidth = 3 * size;
      pen.setLineDash([]);
      pen.strokeStyle = colour("paper");
      pen.fillStyle = ink;
      pen.strokeText(name, left + 6 * size, y - 2 * size);
      pen.fillText(name, left + 6 * size, y - 2 * size);
    }
    pen.restore();
  };

  const zoom = (from, to) => {
    if (moving) return;
    moving = true;
    for (const { plot, timed } of plots) if (timed) plot.setScale("x", { min: from, max: to });
    moving = false;
    zoomed = from <= 0 && to >= data.length ? null : [from, to];
    whole.disabled = zoomed === null;
  };

  const point = (plot) => {
    const at = plot.cursor.left >= 0 ? plot.posToVal(plot.cursor.left, "x") : null;
    if (at === null) return void (where.textContent = "");
    const near = (plot.scales.x.max - plot.scales.x.min) / 80;
    const close = data.marks.filter(([time]) => Math.abs(time - at) <= near)
      .sort((a, b) => (a[2] === null) - (b[2] === null) || Math.abs(a[0] - at) - Math.abs(b[0] - at))[0];
    where.textContent = moment(at) + (close ? `: ${close[2] === null ? "" : `${close[2]}. `}${close[1]}` : "");
  };

  const series = (chart, line) => {
    const ink = colour(line.colour);
    const found = {
      label: line.name,
      stroke: ink,
      width: line.wide ? 2.2 : 1.4,
      dash: DASHES[line.dash],
      value: (_, __, ___, index) => index == null ? "" : shown(chart.unit, line.values[index]),
      points: { show: (plot, n) => line.look === "line" && lonely(line.values), size: 5, fill: ink },
    };
    if (line.fill) found.fill = faint(ink, 0.13);
    if (line.look === "steps") found.paths = uPlot.paths.stepped({ align: 1 });
    if (line.look === "bars") Object.assign(found, { fill: ink, width: 0, paths: uPlot.paths.bars({ size: [0.85, 40], align: 1 }) });
    return found;
  };
  // Of what is known for single moments only, no line can be drawn.
  const lonely = (values) => values.every((value, n) => value == null || (values[n - 1] == null && values[n + 1] == null));

  // Powers of ten, or where there are few of them, 2 and 5 times them as well.
  const decades = (min, max) => {
    const found = (factors) => Array.from({ length: 16 }, (_, n) => 10 ** (n - 5)).flatMap((power) => factors.map((n) => n * power))
      .filter((value) => value >= min * 0.999 && value <= max * 1.001);
    const few = found([1, 2, 5]);
    return few.length <= 5 ? few : found([1]);
  };

  const draw = (place, chart, first) => {
    const timed = !chart.xs.length, soft = colour("soft"), font = "12px system-ui, sans-serif";
    const grid = { stroke: colour("line"), width: 1 }, ticks = { show: false };
    const values = stacked(chart.lines), height = chart.lines.some((line) => line.look === "bars") ? LOW : HEIGHT;
    // Drawn last to first, so that the first line is on top, and a bar is not hidden by the one that stands on it.
    const order = chart.lines.map((_, n) => n).reverse();
    const highest = Math.max(...chart.levels.map(([value]) => value), 0);
    const lowest = Math.min(...chart.levels.map(([value]) => value), Infinity);
    const plot = new uPlot({
      width: place.clientWidth,
      height,
      padding: [first ? 16 : 8, 24, 0, 0],
      cursor: {
        y: false,
        drag: { x: true, y: false },
        ...(timed ? { sync: { key: "run", scales: ["x", null], setSeries: false,
          filters: { pub: (type) => type === "mousemove" || type === "mouseleave" } } } : {}),
      },
      legend: { live: true, markers: { dash: (_, n) => n ? chart.lines[order[n - 1]].dash || "solid" : "solid" } },
      scales: {
        x: { time: false, range: (_, min, max) => timed ? [min ?? 0, min === 0 && max === seconds.at(-1) ? data.length : max] : [0, chart.xs.at(-1) || 1] },
        y: chart.log
          ? { distr: 3, range: (_, min, max) => uPlot.rangeLog(Math.min(min ?? lowest, lowest), Math.max(max ?? highest, highest), 10, false) }
          : { range: (_, min, max) => [0, Math.max(max ?? 0, highest) * 1.08 || 1] },
      },
      axes: [
        {
          stroke: soft, font, grid: { show: false }, ticks, size: 30, space: 56,
          ...(timed
            ? { incrs: [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400], values: (_, all) => all.map(moment) }
            : { splits: () => data.nines.map(([at]) => at).filter((at) => at <= chart.xs.at(-1) && (at === 0 || at >= 1 || place.clientWidth > 560)),
                values: (_, all) => all.map((at) => (data.nines.find(([known]) => known === at) || [0, ""])[1]) }),
        },
        {
          stroke: soft, font, grid, ticks, size: AXIS, space: 34,
          ...(chart.log ? { splits: (_, __, min, max) => decades(min, max) } : {}),
          ...(chart.unit === "count" ? { incrs: [1, 2, 5].flatMap((n) => [n, n * 10, n * 100, n * 1e3, n * 1e4, n * 1e5]).sort((a, b) => a - b) } : {}),
          values: (_, all) => all.map((value) => value == null ? "" : shown(chart.unit, value)),
        },
      ],
      series: [{ label: timed ? "time" : "share", value: (_, value) => value == null ? "" : timed ? moment(value) : share(value) },
        ...order.map((n) => series(chart, chart.lines[n]))],
      hooks: {
        drawClear: [background(chart)],
        draw: [foreground(chart, first)],
        setCursor: timed ? [point] : [],
        setScale: timed ? [(plot, key) => key === "x" && zoom(plot.scales.x.min, plot.scales.x.max)] : [],
      },
    }, [timed ? seconds : chart.xs, ...order.map((n) => values[n])], place);
    // The legend reads in the order of the lines.
    const body = plot.root.querySelector(".u-legend tbody") || plot.root.querySelector(".u-legend");
    [...body.querySelectorAll(".u-series")].slice(1).reverse().forEach((row) => body.append(row));
    plots.push({ plot, timed, place, height });
  };

  const begin = () => {
    const kept = zoomed;
    plots.forEach(({ plot }) => plot.destroy());
    plots = [];
    moving = true;
    data.charts.forEach((chart, n) => draw(document.querySelector(`[data-chart="${chart.id}"]`), chart, n === 0 && !chart.xs.length));
    moving = false;
    if (kept) zoom(...kept);
  };

  const fit = () => plots.forEach(({ plot, place, height }) => {
    if (place.clientWidth && place.clientWidth !== plot.width) plot.setSize({ width: place.clientWidth, height });
  });

  if (!data.charts.length) return;
  document.body.classList.add("drawn");
  begin();
  new ResizeObserver(() => requestAnimationFrame(fit)).observe(document.querySelector("main"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", begin);
  if (!whole) return;
  whole.addEventListener("click", () => zoom(0, data.length));
  document.querySelectorAll("[data-from]").forEach((button) => button.addEventListener("click", () => {
    zoom(Number(button.dataset.from), Number(button.dataset.to));
    document.getElementById("h-time").scrollIntoView();
  }));
})();
