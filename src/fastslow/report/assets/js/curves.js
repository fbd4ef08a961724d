// 2. Curves, and where the time and the money went.

const AXES = { step: "RL steps", rollouts: "sampled rollouts, the search's included", seconds: "training seconds" };

function curvesSection(root) {
  const state = { panel: 0, axis: "step", task: "", hidden: new Set(), hiddenParts: new Set() };
  let data = null;
  const redraw = () => update(data);
  const panel = select("curves-panel", "Comparison", (value) => { state.panel = Number(value); redraw(); });
  const task = select("curves-task", "Accuracy on", (value) => { state.task = value; redraw(); });
  const axes = segments("axis", "Horizontal axis", [["step", "Steps"], ["rollouts", "Rollouts"], ["seconds", "Seconds"]], state.axis, (value) => { state.axis = value; redraw(); });
  const keys = h("div");
  const figures = {
    accuracy: figure("chart-accuracy", true), kl: figure("chart-kl"), penalty: figure("chart-penalty"), reward: figure("chart-reward"), drift: figure("chart-drift"),
    entropy: figure("chart-entropy"), time: figure("chart-time"), rollouts: figure("chart-rollouts"),
  };
  const costs = h("div");
  root.append(sectionHead("curves", "Learning curves and costs"), h("div", { class: "controls" }, panel, task, axes), h("div", { class: "controls" }, keys),
    h("div", { class: "charts" }, ["accuracy", "kl", "drift", "reward", "penalty", "entropy", "time", "rollouts"].map((name) => figures[name])), costs);
  const toggle = (set) => (name) => { if (!set.delete(name)) set.add(name); redraw(); };

  function update(found) {
    data = found;
    if (state.panel >= data.panels.length) state.panel = 0;
    const shown = data.panels[state.panel];
    const all = shown.series.map((series, index) => ({ ...series, ...(series.run === undefined ? {} : curvesOf(data.runs[series.run])), index }));
    const visible = all.filter((series) => !state.hidden.has(series.name));
    const tasks = [...new Set(all.flatMap((series) => series.evaluations.flatMap((point) => Object.keys(point.tasks || {}))))];
    if (state.task && !tasks.includes(state.task) && state.task !== "best") state.task = "";
    panel.update(data.panels.map((each, index) => [String(index), each.title]), String(state.panel));
    task.update([["", "all validation problems, mean@k"], ["best", "all validation problems, best@k"], ...tasks.map((name) => [name, name])], state.task);
    const focused = keyOfFocus(root);
    keys.replaceChildren(legend(all.map((series) => series.name), state.hidden, toggle(state.hidden), swatch));
    for (const [name, spec] of Object.entries(lineSpecs(visible, state))) figures[name].update(spec);
    for (const name of ["reward", "entropy"]) figures[name].hidden = !all.some((series) => series.training);
    figures.penalty.hidden = !all.some((series) => series.training && series.training.kl_penalty.some((value) => value !== null));
    for (const [name, spec] of Object.entries(barSpecs(visible, state, toggle(state.hiddenParts)))) figures[name].update(spec);
    costs.replaceChildren(costTable(all));
    refocus(root, focused);
  }
  return { update };
}

const curvesOf = (run) => ({ evaluations: run.evaluations, training: run.training });

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

function lineSpecs(visible, state) {
  const known = (value) => value !== null && value !== undefined;
  const lines = (value, band) => visible.map((series) => ({
    name: series.name, index: series.index,
    data: series.evaluations.map((point) => [point[state.axis], value(point), ...(band ? [point[`${band}_low`], point[`${band}_high`]] : [])]).filter((point) => known(point[1])),
  }));
  const steps = (name) => visible.map((series) => ({
    name: series.name, index: series.index,
    data: series.training ? series.training[name].map((value, at) => [series.training[state.axis][at], value]).filter((point) => known(point[1])) : [],
  }));
  const drift = visible.map((series) => ({
    name: series.name, index: series.index,
    data: series.evaluations.filter((point) => known(point.kl) && known(point.accuracy)).map((point) => [point.kl, point.accuracy]),
  }));
  const estimated = visible.filter((series) => series.evaluations.some((point) => point.kl_name && point.kl_name !== "KL"));
  const how = !estimated.length ? "over the full vocabulary" : `estimated from sampled tokens${estimated.length === visible.length ? "" : ` for ${estimated.map((series) => series.name).join(", ")}, over the full vocabulary for the others`}`;
  const score = state.task === "best" ? "best" : "accuracy";
  const accuracy = state.task && state.task !== "best" ? lines((point) => (point.tasks || {})[state.task]) : lines((point) => point[score], score);
  const x = AXES[state.axis];
  const bands = visible.some((series) => series.count > 1) ? " Lines are medians over seeds, bands go from the lowest to the highest." : "";
  return {
    accuracy: { title: "Validation accuracy", note: `Under the best prompt of that moment.${bands}`, x, y: "accuracy", xMin: 0, yMin: 0, yMax: 1, series: accuracy },
    kl: { title: "KL to the base model", note: `On validation problems, ${how}.`, x, y: "nats a token", xMin: 0, yMin: 0, series: lines((point) => point.kl, "kl") },
    drift: { title: "Accuracy against drift", note: "One point an evaluation: up is better, left is closer to the base model.", x: `KL to base${estimated.length ? " (estimate)" : ""}, nats a token`, y: "accuracy", xMin: 0, yMin: 0, yMax: 1, scatter: true, series: drift },
    penalty: { title: "KL to the base model in training", note: "On the step's rollouts, as the loss sees it: an estimate from their tokens.", x, y: "nats a token", xMin: 0, yMin: 0, series: steps("kl_penalty") },
    reward: { title: "Training reward", note: "Mean over a step's rollouts.", x, y: "reward", xMin: 0, yMin: 0, yMax: 1, series: steps("reward") },
    entropy: { title: "Entropy", note: "Of the policy at completion positions.", x, y: "nats", xMin: 0, yMin: 0, series: steps("entropy") },
  };
}

function barSpecs(visible, state, toggle) {
  const names = visible.map((series) => series.name);
  const bars = (parts, format, more) => {
    const all = parts.map(([name, value], index) => ({ name, index, values: visible.map((series) => value(series.totals) ?? 0) }));
    const shown = all.filter((part) => !state.hiddenParts.has(part.name));
    return { ...more, names, parts: shown, format, legend: legend(all.map((part) => part.name), state.hiddenParts, toggle, fillSwatch) };
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
