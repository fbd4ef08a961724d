// 1. What was trained on what, and did it work.

function summarySection(root) {
  const head = h("header");
  const body = h("div");
  root.append(head, body);
  return {
    update(data) {
      const runs = data.runs.filter((run) => !run.part);
      head.replaceChildren(h("h1", { id: "summary-title" }, headTitle(data, runs)), ...headFacts(data, runs));
      body.replaceChildren(
        ...data.notes.map((note) => h("p", { class: "notice" }, note)),
        ...runs.flatMap((run) => run.errors.slice(-1).map(([step, text]) => h("p", { class: "notice" },
          `${run.name}: reflection failed in ${plural(run.errors.length, "step")}, last at step ${step}: ${text}`))),
        ...data.panels.flatMap((panel, index) => panelResults(panel, data, index)));
    },
  };
}

function headTitle(data, runs) {
  if (runs.length === 1 && data.panels.length === 1) return runs[0].name;
  if (runs.length && data.panels.length === 1) return `${runs.length} runs side by side`;
  return data.title;
}

function headFacts(data, runs) {
  const fact = (label, text) => h("li", null, `${label} `, h("b", null, text));
  const unique = (values) => [...new Set(values)].join(", ");
  if (!runs.length) {
    const count = data.panels.reduce((sum, panel) => sum + panel.series.reduce((total, series) => total + series.count, 0), 0);
    return [h("ul", { class: "facts" }, fact("experiment with", plural(count, "run")), fact("in", plural(data.panels.length, "comparison")))];
  }
  const [run] = runs;
  const options = runs.every((each) => each.task_options === run.task_options) && run.task_options;
  const facts = [
    fact("Model", unique(runs.map((each) => each.model))),
    fact("task", unique(runs.map((each) => each.task)) + (options ? ` (${options})` : "")),
    fact("method", unique(runs.map((each) => methodName(each.method)))),
    fact("seed", unique(runs.map((each) => each.seed))),
  ];
  if (runs.length === 1) facts.push(fact("steps", `${number(run.totals.steps)} of ${number(run.planned_steps)}`));
  const verdict = runs.length === 1 ? [h("p", { class: "lead", id: "verdict" }, data.panels[0].series[0].headline.verdict)] : [];
  return [h("ul", { class: "facts" }, facts), ...verdict];
}

function panelResults(panel, data, index) {
  const alone = panel.series.length === 1 && panel.kind === "runs";
  const shown = panel.series.slice(0, 8);
  return [
    data.panels.length > 1 ? h("h3", { id: `panel-${index}`, class: "panel-title" }, panel.title) : null,
    h("div", { class: "cards" }, shown.map((series, place) => resultCard(series, place, alone, panel.kind))),
    alone ? null : h("div", { class: "card table-card" }, table({ ...panel.table, caption: panel.kind === "runs" ? "Every run" : "Every group of seeds"})),
    panel.measures ? h("div", { class: "card table-card" }, table({ ...panel.measures, caption: "Accuracy on the test split, by what it was measured under. Of one seed, brackets are the 95 % interval over problems; of several, over seeds, as said below." })) : null,
    h("p", { class: "note" }, panel.note),
  ].filter(Boolean);
}

function resultCard(series, place, alone, kind) {
  const found = series.headline;
  const interval = found.interval ? `${number(found.interval[0], 3)} to ${number(found.interval[1], 3)}` : null;
  return h("article", { class: `result card${alone ? " alone" : ""}` },
    alone ? h("h3", null, "Validation accuracy at the end") : h("h3", null, swatch(place), series.name),
    h("p", { class: "big" }, number(found.after, 3), interval ? h("small", null, interval) : null),
    found.after === null ? null : rangeStrip(found, place),
    h("p", { class: "soft small" }, found.after === null ? "no evaluation after the start" : `${found.before === null ? "" : `from ${number(found.before, 3)} · `}${found.interval_note || "no interval"}`),
    alone || kind !== "runs" ? null : h("p", { class: "small" }, found.verdict),
    alone ? figures(series) : null);
}

function figures(series) {
  const { totals, headline } = series;
  const items = [
    [`${headline.kl_name || "KL"} to base, nats a token`, headline.kl === null ? "–" : number(headline.kl, 3)], ["sampled rollouts", number(totals.sampled)],
    ["of them for the prompt search", number(totals.sampled_gepa + (totals.sampled_reflection || 0))], ["rollouts reused", number(totals.reused)],
    ["training time", duration(totals.seconds)], ["reflection", dollars(totals.usd)],
  ];
  return h("dl", { class: "figures" }, items.map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value))));
}

// From 0 to 1: a hollow mark before, a solid one after, and the interval as a bar with ends.
function rangeStrip({ before, after, interval }, place) {
  const x = (value) => 6 + 288 * value;
  const paint = `var(${mark(place).colour})`;
  const text = `${before === null ? "" : `before ${number(before, 3)}, `}after ${number(after, 3)} on a scale from 0 to 1`;
  return svg("svg", { class: "range", viewBox: "0 0 300 30", preserveAspectRatio: "xMinYMid meet", role: "img", "aria-label": text },
    svg("line", { x1: 6, x2: 294, y1: 12, y2: 12, stroke: "var(--line-strong)", "stroke-width": 2, "stroke-linecap": "round" }),
    [0, 0.5, 1].map((value) => svg("text", { x: x(value), y: 28, "text-anchor": value === 0 ? "start" : value === 1 ? "end" : "middle", "font-size": 9.5, fill: "var(--soft)" }, String(value))),
    interval ? [
      svg("line", { x1: x(interval[0]), x2: x(interval[1]), y1: 12, y2: 12, stroke: paint, "stroke-width": 4, opacity: 0.55 }),
      interval.map((end) => svg("line", { x1: x(end), x2: x(end), y1: 7, y2: 17, stroke: paint, "stroke-width": 2 })),
    ] : null,
    before === null ? null : svg("circle", { cx: x(before), cy: 12, r: 5, fill: "var(--card)", stroke: paint, "stroke-width": 2 }),
    svg("circle", { cx: x(after), cy: 12, r: 5.5, fill: paint }));
}
