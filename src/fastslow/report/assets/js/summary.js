// 1. The finding in words, the numbers behind it, and the best prompt beside the one that it began with.

function summarySection(root) {
  const head = h("header");
  const body = h("div");
  const curve = figure("chart-first");
  curve.classList.add("first");
  root.append(head, body);
  return {
    update(data) {
      const runs = data.runs.filter((run) => !run.part);
      const [first] = data.panels;
      const held = body.contains(document.activeElement) ? document.activeElement : null;
      const key = keyOfFocus(body);
      head.replaceChildren(h("p", { class: "eyebrow" }, headTitle(data, runs)), h("h1", { id: "summary-title" }, first ? first.finding.title : data.title),
        ...notesOf(first), headFacts(data, runs));
      body.replaceChildren(
        ...data.notes.map((note) => h("p", { class: "notice" }, note)),
        ...runs.flatMap((run) => run.errors.slice(-1).map(([step, text]) => h("p", { class: "notice" },
          `${run.name}: reflection failed in ${plural(run.errors.length, "step")}, last at step ${step}: ${text}`))),
        ...data.panels.flatMap((panel, index) => panelResults(panel, data, index, curve)));
      if (first) curve.update(firstCurve(first, data));
      watchScroll(root);
      // What is built anew, or was moved, keeps the focus.
      if (held && held.isConnected) held.focus({ preventScroll: true }); else refocus(body, key);
    },
  };
}

function headTitle(data, runs) {
  if (runs.length === 1 && data.panels.length === 1) return runs[0].name;
  if (runs.length && data.panels.length === 1) return `${runs.length} runs side by side`;
  return data.panels.length ? data.panels[0].title : data.title;
}

// The first note is the verdict; the others say how to read it.
function notesOf(panel) {
  const [verdict, ...more] = panel ? panel.finding.notes : [];
  return [verdict ? h("p", { class: "lead", id: "verdict" }, verdict) : null, ...more.map((note) => h("p", { class: "note" }, note))].filter(Boolean);
}

function headFacts(data, runs) {
  const fact = (label, text) => h("li", null, `${label} `, h("b", null, text));
  const unique = (values) => [...new Set(values)].join(", ");
  if (!runs.length) {
    const count = data.panels.reduce((sum, panel) => sum + panel.series.reduce((total, series) => total + series.count, 0), 0);
    const about = data.panels.length && data.panels[0].about;
    return h("ul", { class: "facts" }, fact("experiment with", plural(count, "run")), data.panels.length > 1 ? fact("in", plural(data.panels.length, "comparison")) : null, about ? fact("on", about) : null);
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
  return h("ul", { class: "facts" }, facts);
}

const MOST_CARDS = 8;

// The curve of the first screen: accuracy against the rollouts that it cost.
function firstCurve(panel, data) {
  const series = panel.series.slice(0, MOST_CARDS).map((each, index) => ({
    name: each.name, index, colour: each.colour,
    data: (each.run === undefined ? each : data.runs[each.run]).evaluations.filter((point) => known(point.accuracy)).map((point) => [point.rollouts, point.accuracy]),
  }));
  return { title: "Accuracy against sampled rollouts", note: "", x: axisTitle("rollouts", panel.axis), y: "accuracy", xMin: 0, yMin: 0, yMax: 1, series };
}

function panelResults(panel, data, index, curve) {
  const alone = panel.series.length === 1 && panel.kind === "runs";
  const shown = panel.series.slice(0, MOST_CARDS);
  const prompt = index === 0 ? bestPromptCard(panel, data) : null;
  const cards = h("div", { class: "cards" }, shown.map((series, place) => resultCard({ index: place, ...series }, alone, panel.kind)));
  return [
    ...(index ? [h("h2", { id: `panel-${index}`, class: "panel-title" }, panel.title), h("p", { class: "lead" }, panel.finding.title), ...panel.finding.notes.map((note) => h("p", { class: "note" }, note))] : []),
    index || shown.length > 3 ? cards : h("div", { class: "hero" }, cards, h("div", { class: "side" }, prompt, curve)),
    index || shown.length <= 3 ? null : h("div", { class: "hero" }, curve, prompt),
    panel.series.length > MOST_CARDS ? h("p", { class: "note" }, `The first ${MOST_CARDS} of ${panel.series.length}; all of them are in the table.`) : null,
    alone ? null : h("div", { class: "card table-card" }, table({ ...panel.table, caption: panel.kind === "runs" ? "Every run" : "Every group of seeds" })),
    panel.measures ? h("div", { class: "card table-card" }, table({ ...panel.measures, caption: "Accuracy on the test split, by what it was measured under. Of one seed, brackets are the 95 % interval over problems; of several, over seeds, as said below." })) : null,
    h("p", { class: "note" }, panel.note),
  ].filter(Boolean);
}

function resultCard(series, alone, kind) {
  const found = series.headline;
  const interval = found.interval ? `${number(found.interval[0], 3)} to ${number(found.interval[1], 3)}` : null;
  return h("article", { class: `result card${alone ? " alone" : ""}` },
    alone ? h("h3", null, "Validation accuracy at the end") : h("h3", null, swatch(series), kind === "runs" ? cardName(series) : series.name),
    h("p", { class: "big" }, number(found.after, 3), interval ? h("small", null, interval) : null),
    found.after === null ? null : rangeStrip(found, series),
    h("p", { class: "soft small" }, found.after === null ? "no evaluation after the start" : `${found.before === null ? "" : `from ${number(found.before, 3)} · `}${found.interval_note || "no interval"}`),
    alone || kind !== "runs" ? null : h("p", { class: "small" }, found.verdict),
    figures(series, alone));
}

// A run's name, and its method where the name does not say it.
function cardName({ name, method }) {
  const said = name.toLowerCase();
  return !method || [method, methodName(method)].some((each) => said.includes(each.toLowerCase())) ? name : `${name} · ${methodName(method)}`;
}

function figures(series, whole) {
  const { totals, headline } = series;
  const items = [
    [`${headline.kl_name || "KL"} to base, nats a token`, known(headline.kl) ? number(headline.kl, 3) : "–"],
    ...(known(headline.kl_completion) ? [["the same, nats a completion", number(headline.kl_completion, 2)]] : []),
    ["sampled rollouts", number(totals.sampled)],
    ["training time", duration(totals.seconds)],
    ...(whole ? [["for the prompt search", number(totals.sampled_gepa + (totals.sampled_reflection || 0))], ["rollouts reused", number(totals.reused)], ["reflection", dollars(totals.usd)]] : []),
  ];
  return h("dl", { class: "figures" }, items.map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value))));
}

// The best prompt of the panel's best run, with what changed against the prompt that it began with.
function bestPromptCard(panel, data) {
  const own = panel.series.map((series, index) => ({ series, index, run: series.run === undefined ? null : data.runs[series.run] })).filter((each) => each.run && each.run.best);
  const parts = panel.kind === "experiment" ? data.runs.filter((run) => run.part && run.best) : [];
  const changed = (run) => Object.values(run.best.edits).some((edits) => edits.length);
  const ranked = own.sort((a, b) => (b.series.headline.after ?? -1) - (a.series.headline.after ?? -1)).map((each) => each.run);
  const run = [...ranked, ...parts].find(changed) || ranked[0] || parts[0];
  if (!run) return plainBest(panel);
  const few = panel.series.length === 1 && panel.kind === "runs";
  return h("article", { class: "card best", id: "best-prompt" },
    h("h3", null, few ? "The best prompt" : `The best prompt of ${run.name}`),
    h("p", { class: "note" }, changed(run) ? "What the search changed against the seed prompt: + came in, − went." : "It is the seed prompt: nothing was changed in it."),
    ...Object.entries(run.best.components).map(([name, text]) => h("div", null,
      Object.keys(run.best.components).length > 1 ? h("h4", { class: "small soft" }, name) : null,
      scrolled(diffBox(run.best.seed[name] || "", text, run.best.edits[name] || []), "The best prompt against the seed prompt"))));
}

function plainBest(panel) {
  const best = [...panel.series].sort((a, b) => (b.headline.after ?? -1) - (a.headline.after ?? -1)).map((each) => each.name);
  const first = [...panel.best_prompts].sort((a, b) => best.indexOf(a.group) - best.indexOf(b.group))[0];
  return first ? h("article", { class: "card best", id: "best-prompt" }, h("h3", null, `The best prompt of ${first.part}`), scrolled(plainBox(first.text), "The best prompt")) : null;
}

function scrolled(box, label) {
  return h("div", { class: "tall", tabindex: "0", role: "region", "data-key": label, "aria-label": label }, box);
}

// From 0 to 1: a hollow mark before, a solid one after, and the interval as a bar with ends.
function rangeStrip({ before, after, interval }, series) {
  const x = (value) => 6 + 288 * value;
  const paint = `var(${mark(series).colour})`;
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
