// 2. Curves, any logged metric, and where the time and the money went.

const AXES = { step: "RL steps", rollouts: "sampled rollouts, the search's included", seconds: "training seconds", usd: "USD for reflection" };
const DRIFTS = { kl: "nats a token", kl_completion: "nats a completion" };
const DRIFT_NAMES = [["kl", "A token"], ["kl_completion", "A completion"]];
const AXIS_NAMES = [["rollouts", "Rollouts"], ["seconds", "Seconds"], ["usd", "USD"], ["step", "Steps"]];

function curvesSection(root) {
  const state = { panel: 0, axis: "rollouts", drift: "kl", task: "", hidden: new Set(), hiddenParts: new Set() };
  let data = null;
  const redraw = () => update(data);
  const panel = select("curves-panel", "Comparison", (value) => { state.panel = Number(value); redraw(); });
  const task = select("curves-task", "Accuracy on", (value) => { state.task = value; redraw(); });
  const axes = segments("axis", "Cost on the horizontal axis", AXIS_NAMES, state.axis, (value) => { state.axis = value; redraw(); });
  const drift = segments("drift", "KL of", DRIFT_NAMES, state.drift, (value) => { state.drift = value; redraw(); });
  const keys = h("div");
  const any = metricPart();
  const figures = {
    accuracy: figure("chart-accuracy", true), kl: figure("chart-kl"), reward: figure("chart-reward"), drift: figure("chart-drift"),
    entropy: figure("chart-entropy"), time: figure("chart-time"), rollouts: figure("chart-rollouts"),
  };
  const costs = h("div");
  root.append(sectionHead("curves", "Learning curves and costs"), h("div", { class: "controls" }, panel, task, axes, drift), h("div", { class: "controls" }, keys),
    h("div", { class: "charts" }, ["accuracy", "kl", "drift", "reward", "entropy"].map((name) => figures[name]), any.element, figures.time, figures.rollouts), costs);
  const toggle = (set) => (name) => { if (!set.delete(name)) set.add(name); redraw(); };

  function update(found) {
    data = found;
    if (state.panel >= data.panels.length) state.panel = 0;
    const shown = data.panels[state.panel];
    const all = shown.series.map((series, index) => ({ ...series, ...(series.run === undefined ? {} : curvesOf(data.runs[series.run])), index }));
    const visible = all.filter((series) => !state.hidden.has(series.name));
    const tasks = [...new Set(all.flatMap((series) => series.evaluations.flatMap((point) => Object.keys(point.tasks || {}))))];
    if (state.task && !tasks.includes(state.task) && state.task !== "best") state.task = "";
    const paid = all.some((series) => series.evaluations.some((point) => point.usd));
    axes.show("usd", paid);
    if (state.axis === "usd" && !paid) { state.axis = "rollouts"; axes.set("rollouts"); }
    // A token's mean is larger where answers are short; runs of older versions have no sum over a completion.
    drift.hidden = !all.some((series) => series.evaluations.some((point) => known(point.kl_completion)));
    if (drift.hidden) { state.drift = "kl"; drift.set("kl"); }
    panel.update(data.panels.map((each, index) => [String(index), each.title]), String(state.panel));
    task.update([["", "all validation problems, mean@k"], ["best", "all validation problems, best@k"], ...tasks.map((name) => [name, name])], state.task);
    const focused = keyOfFocus(root);
    keys.replaceChildren(legend(all, state.hidden, toggle(state.hidden), swatch));
    for (const [name, spec] of Object.entries(lineSpecs(visible, state, shown.axis))) figures[name].update(spec);
    for (const name of ["reward", "entropy"]) figures[name].hidden = !all.some((series) => series.training);
    any.update(all, visible, state.axis, shown.axis, data.metrics);
    for (const [name, spec] of Object.entries(barSpecs(visible, state, toggle(state.hiddenParts)))) figures[name].update(spec);
    costs.replaceChildren(costTable(all));
    watchScroll(root);
    refocus(root, focused);
  }
  return { update };
}

const curvesOf = (run) => ({ evaluations: run.evaluations, training: run.training });
const known = (value) => value !== null && value !== undefined;
const axisTitle = (axis, budgets) => AXES[axis] + (axis === "rollouts" && budgets ? `\n${budgets}` : "");

// Controls that are built anew keep the focus: it follows their key.
function keyOfFocus(root) {
  const element = document.activeElement;
  return element && root.contains(element) ? element.getAttribute("data-key") : null;
}

function refocus(root, key) {
  if (key === null) return;
  const again = [...root.querySelectorAll("[data-key]")].find((element) => element.getAttribute("data-key") === key);
  if (again) again.focus({ preventScroll: true });
}

// The values of a metric over the training steps, as points of a chart.
function stepsOf(series, name, axis) {
  const values = series.training && series.training[name];
  return values ? values.map((value, at) => [series.training[axis][at], value]).filter((point) => known(point[0]) && known(point[1])) : [];
}

function lineSpecs(visible, state, budgets) {
  const like = ({ name, index, colour }) => ({ name, index, colour });
  const lines = (value, band) => visible.map((series) => ({
    ...like(series),
    data: series.evaluations.map((point) => [point[state.axis], value(point), ...(band ? [point[`${band}_low`], point[`${band}_high`]] : [])]).filter((point) => known(point[0]) && known(point[1])),
  }));
  const steps = (name) => visible.map((series) => ({ ...like(series), data: stepsOf(series, name, state.axis) }));
  const drift = visible.map((series) => ({
    ...like(series),
    data: series.evaluations.filter((point) => known(point[state.drift]) && known(point.accuracy)).map((point) => [point[state.drift], point.accuracy]),
  }));
  const estimated = visible.filter((series) => series.evaluations.some((point) => point.kl_name && point.kl_name !== "KL"));
  const how = !estimated.length ? "over the full vocabulary" : `estimated from sampled tokens${estimated.length === visible.length ? "" : ` for ${estimated.map((series) => series.name).join(", ")}, over the full vocabulary for the others`}`;
  const score = state.task === "best" ? "best" : "accuracy";
  const accuracy = state.task && state.task !== "best" ? lines((point) => (point.tasks || {})[state.task]) : lines((point) => point[score], score);
  const x = axisTitle(state.axis, budgets);
  const bands = visible.some((series) => series.count > 1) ? " Lines are medians over seeds, bands go from the lowest to the highest." : "";
  return {
    accuracy: { title: "Validation accuracy against what it cost", note: `Under the best prompt of that moment.${bands}`, x, y: "accuracy", xMin: 0, yMin: 0, yMax: 1, series: accuracy },
    kl: { title: "KL to the base model", note: `On validation problems, ${how}.`, x, y: DRIFTS[state.drift], xMin: 0, yMin: 0, series: lines((point) => point[state.drift], state.drift) },
    drift: { title: "Accuracy against drift", note: "One point an evaluation: up is better, left is closer to the base model.", x: `KL to base${estimated.length ? " (estimate)" : ""}, ${DRIFTS[state.drift]}`, y: "accuracy", xMin: 0, yMin: 0, yMax: 1, scatter: true, series: drift },
    reward: { title: "Training reward", note: "Mean over a step's rollouts.", x, y: "reward", xMin: 0, yMin: 0, yMax: 1, series: steps("reward/mean") },
    entropy: { title: "Entropy", note: "Of the policy at completion positions.", x, y: "nats", xMin: 0, yMin: 0, series: steps("slow/entropy") },
  };
}

// -- any metric -----------------------------------------------------------------------------------------------------

const SMOOTHING = [["1", "none"], ["5", "mean of 5 steps"], ["20", "mean of 20 steps"], ["50", "mean of 50 steps"]];
const PREFERRED = ["rollouts/completion_tokens", "slow/loss"];

function metricPart() {
  const state = { name: null, smooth: 1, log: false };
  let latest = null;
  const redraw = () => update(...latest);
  const name = select("metric-name", "Metric", (value) => { state.name = value; redraw(); });
  const smooth = select("metric-smooth", "Smoothing", (value) => { state.smooth = Number(value); redraw(); });
  const scale = segments("metric-scale", "Vertical axis", [["linear", "Linear"], ["log", "Log"]], "linear", (value) => { state.log = value === "log"; redraw(); });
  const chart = figure("chart-metric", true);
  const element = h("div", { class: "metric", id: "any-metric" }, h("h3", null, "Any metric of the run"), h("div", { class: "controls" }, name, smooth, scale), chart);

  function update(all, visible, axis, budgets, meanings) {
    latest = [all, visible, axis, budgets, meanings];
    const names = Object.keys(meanings).filter((each) => all.some((series) => series.training && series.training[each]));
    element.hidden = !names.length;
    if (!names.length) return;
    if (!names.includes(state.name)) state.name = PREFERRED.find((each) => names.includes(each)) || names[0];
    name.update(names.map((each) => [each, each]), state.name);
    smooth.update(SMOOTHING, String(state.smooth));
    const [unit, meaning] = meanings[state.name];
    const series = visible.map((each) => ({ name: each.name, index: each.index, colour: each.colour, data: logged(smoothed(stepsOf(each, state.name, axis), state.smooth), state.log) }));
    const notes = [meaning ? `${meaning[0].toUpperCase()}${meaning.slice(1)}.` : "", state.log ? "Values of 0 and below have no place on a log axis." : ""];
    chart.update({ title: state.name, note: notes.filter(Boolean).join(" "), x: axisTitle(axis, budgets), y: unit || "value", xMin: 0, yLog: state.log, series });
  }
  return { element, update };
}

// The mean of each value and those before it, `count` in all.
function smoothed(points, count) {
  if (count < 2) return points;
  return points.map(([x], at) => {
    const part = points.slice(Math.max(0, at - count + 1), at + 1);
    return [x, part.reduce((sum, point) => sum + point[1], 0) / part.length];
  });
}

const logged = (points, log) => (log ? points.filter((point) => point[1] > 0) : points);

// -- costs ------------------------------------------------------------------------------------------------------------

function barSpecs(visible, state, toggle) {
  const names = visible.map((series) => series.name);
  const bars = (parts, format, more) => {
    const all = parts.map(([name, value], index) => ({ name, index, values: visible.map((series) => value(series.totals) ?? 0) }));
    const shown = all.filter((part) => !state.hiddenParts.has(part.name));
    return { ...more, names, parts: shown, format, legend: legend(all, state.hiddenParts, toggle, fillSwatch) };
  };
  return {
    time: bars([["evolve", (t) => t.evolve_s], ["sample", (t) => t.sample_s], ["update", (t) => t.update_s], ["evaluate", (t) => t.evaluate_s]], duration,
      { title: "Where the time went", note: "Evaluation is no part of the training seconds.", unit: "seconds" }),
    rollouts: bars([["sampled for RL", (t) => t.sampled - t.sampled_gepa - (t.sampled_reflection || 0)], ["sampled by the prompt search", (t) => t.sampled_gepa + (t.sampled_reflection || 0)], ["reused, not sampled", (t) => t.reused]], (value) => number(value),
      { title: "Where the rollouts went", note: "Sampled for RL, sampled by the prompt search, or reused from the other side.", unit: "rollouts" }),
  };
}

function costTable(all) {
  const cell = (value, format = number) => (value === undefined ? "–" : format(value));
  const rows = all.map(({ name, totals }) => [
    name, duration(totals.seconds), number(totals.sampled), number(totals.reused), cell(totals.tokens), cell(totals.usd, dollars), cell(totals.reflection_calls),
    cell(totals.reflection_failures), cell(totals.reflection_refused), cell(totals.reflection_tokens), number(totals.updates),
  ]);
  const head = ["", "training time", "sampled rollouts", "reused", "sampled tokens", "reflection cost", "reflection calls", "failed calls", "refused replies", "reflection tokens", "weight updates"];
  const keep = head.map((_, column) => column === 0 || rows.some((row) => row[column] !== "–"));
  const kept = (row) => row.filter((_, column) => keep[column]);
  return h("div", { class: "card table-card", id: "costs" }, h("h3", null, "What it cost"), table({ caption: "", head: kept(head), rows: rows.map(kept) }));
}
