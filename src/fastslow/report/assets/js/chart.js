// One figure: a chart, and the same numbers as a table. The chart can be read with the arrow keys.

const charts = new Map();
const cssVariable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// The figure stays; `update` draws it anew. spec: {title, note, x, y, series: [{name, index, data: [[x, y, low, high]]}]} for
// lines, or {title, note, unit, names, parts: [{name, values}]} for stacked bars.
function figure(id, main = false) {
  const title = h("h3", { id: `${id}-title` });
  const note = h("p", { class: "note", id: `${id}-note` });
  const plot = h("div", { class: "plot", id, tabindex: "0", role: "group", "aria-roledescription": "chart", "aria-labelledby": `${id}-title`, "aria-describedby": `${id}-note ${id}-keys` });
  const said = h("p", { class: "hidden-text", role: "status", "aria-live": "polite" });
  const keys = h("p", { class: "hidden-text", id: `${id}-keys` }, "Left and right arrow keys read the points, up and down change the series. The same numbers are in the table.");
  const numbers = h("div", { hidden: true });
  const empty = h("p", { class: "empty", hidden: true }, "Nothing was measured for this chart.");
  const extra = h("div", { hidden: true });
  const button = h("button", { type: "button", id: `${id}-button`, "aria-expanded": "false", onclick: () => show(numbers.hidden) }, "Show as table");
  const element = h("figure", { class: `chart card${main ? " main" : ""}` },
    h("figcaption", null, h("div", null, title, note), button), extra, plot, empty, numbers, said, keys);
  const state = { chart: null, spec: null, at: [0, -1] };
  function show(asTable) {
    numbers.hidden = !asTable;
    if (asTable) watchScroll(numbers);
    plot.hidden = asTable || !hasData(state.spec);
    button.textContent = asTable ? "Show as chart" : "Show as table";
    button.setAttribute("aria-expanded", String(asTable));
    if (!asTable && state.chart) state.chart.resize();
  }
  function draw() {
    if (!hasData(state.spec) || plot.hidden) return;
    if (!state.chart) {
      state.chart = echarts.init(plot, null, { renderer: "svg" });
      new ResizeObserver(() => plot.clientWidth && state.chart.resize()).observe(plot);
    }
    state.chart.setOption(state.spec.parts ? barOption(state.spec) : lineOption(state.spec), true);
  }
  plot.addEventListener("keydown", (event) => readPoint(event, state, said));
  plot.addEventListener("blur", () => state.chart && state.chart.dispatchAction({ type: "hideTip" }));
  element.update = (spec) => {
    state.spec = spec;
    title.textContent = spec.title;
    note.textContent = spec.note || "";
    extra.hidden = !spec.legend;
    if (spec.legend) extra.replaceChildren(spec.legend);
    if (spec.parts) plot.style.setProperty("height", `${70 + spec.names.length * 44}px`);
    numbers.replaceChildren(spec.parts ? barTable(spec) : lineTable(spec));
    empty.hidden = hasData(spec);
    button.hidden = !hasData(spec);
    show(!numbers.hidden && hasData(spec));
    draw();
  };
  element.redraw = draw;
  button.addEventListener("click", draw);
  charts.set(id, element);
  return element;
}

const hasData = (spec) => Boolean(spec) && (spec.parts
  ? spec.names.length > 0 && spec.parts.some((part) => part.values.some((value) => value))
  : spec.series.some((series) => series.data.length));

function lineTable(spec) {
  const bands = spec.series.some((series) => series.data.some((point) => point[2] !== undefined && point[2] !== null));
  const rows = spec.series.flatMap((series) => series.data.map((point) => [
    series.name, short(point[0]), short(point[1]), ...(bands ? [point[2] === undefined ? "–" : `${short(point[2])} to ${short(point[3])}`] : []),
  ]));
  return table({ caption: spec.title, head: ["series", axisWords(spec.x), spec.y, ...(bands ? ["lowest to highest seed"] : [])], rows });
}

// The second line of an axis says that budgets differ: that belongs to the axis alone.
const axisWords = (name) => name.split("\n")[0];

function barTable(spec) {
  const rows = spec.names.map((name, row) => [name, ...spec.parts.map((part) => spec.format(part.values[row]))]);
  return table({ caption: spec.title, head: ["", ...spec.parts.map((part) => part.name)], rows });
}

function readPoint(event, state, said) {
  const moves = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowUp: [-1, 0], ArrowDown: [1, 0], Home: [0, -Infinity], End: [0, Infinity] };
  if (event.key === "Escape" && state.chart) state.chart.dispatchAction({ type: "hideTip" });
  const move = moves[event.key];
  if (!move || !state.chart) return;
  event.preventDefault();
  const rows = state.spec.parts
    ? state.spec.parts.map((part) => ({ name: part.name, points: part.values.map((value, row) => [state.spec.names[row], value]) }))
    : state.spec.series.map((series) => ({ name: series.name, points: series.data }));
  const within = (value, count) => Math.max(0, Math.min(count - 1, value));
  const series = within(state.at[0] + move[0], rows.length);
  const index = within(state.at[1] + move[1], rows[series].points.length);
  state.at = [series, index];
  const point = rows[series].points[index];
  if (!point) return;
  state.chart.dispatchAction({ type: "showTip", seriesIndex: state.spec.parts ? series : state.spec.series[series].drawn, dataIndex: index });
  said.textContent = state.spec.parts
    ? `${point[0]}, ${rows[series].name}: ${state.spec.format(point[1])}`
    : `${rows[series].name}: ${state.spec.y} ${short(point[1])} at ${axisWords(state.spec.x)} ${short(point[0])}`;
}
