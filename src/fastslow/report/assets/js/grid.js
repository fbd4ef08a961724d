// 3b. Which prompt wins on which problems: a row for each prompt, a column for each problem, easy ones first.

const MOST_ROWS = 24;

function gridPart(choose) {
  const state = { cycle: new Map() };
  let latest = null;
  const cycles = select("grid-cycle", "Scored in", (value) => { state.cycle.set(latest[0].id, Number(value)); update(...latest); });
  const title = h("h3", { id: "grid-title" }, "Which prompt wins on which problems");
  const note = h("p", { class: "note" });
  const said = h("p", { class: "small soft", id: "grid-said" });
  const holder = h("div", { class: "scroll", tabindex: "-1" });
  const element = h("div", { class: "grid-card card" }, h("div", { class: "grid-head" }, h("div", null, title, note), cycles), holder, said);

  function update(run, model) {
    latest = [run, model];
    element.hidden = !run.grids.length;
    if (!run.grids.length) return;
    const last = run.grids.at(-1).cycle;
    const chosen = run.grids.find((grid) => grid.cycle === state.cycle.get(run.id)) || run.grids.at(-1);
    cycles.update(run.grids.map((grid) => [String(grid.cycle), `cycle ${grid.cycle}`]), String(chosen.cycle));
    const table = scoreTable(chosen, model, chosen.cycle === last);
    const scroll = holder.scrollLeft;
    const focused = keyOfFocus(holder);
    holder.replaceChildren(table.element);
    holder.scrollLeft = scroll;
    refocus(holder, focused);
    note.textContent = table.note + [["problems", "problem"], ["cycles", "earlier cycle"]].map(([key, one]) => (run.left_out[key] ? ` ${plural(run.left_out[key], one)} left out to keep the page small.` : "")).join("");
    said.textContent = "Point at a square, or move with the arrow keys, to see its problem.";
  }
  holder.addEventListener("keydown", gridKey);
  for (const kind of ["focusin", "mouseover"]) {
    holder.addEventListener(kind, (event) => {
      const cell = event.target.closest("td.score");
      if (cell) said.textContent = cell.getAttribute("aria-label");
    });
  }
  holder.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-hash]");
    if (button) choose(button.getAttribute("data-hash"));
  });
  return { element, update };
}

function scoreTable(grid, model, isLast) {
  const mean = (row) => { const known = row.filter((value) => value !== null); return known.reduce((sum, value) => sum + value, 0) / known.length; };
  const whole = Math.max(...grid.rows.map(([, row]) => row.filter((value) => value !== null).length));
  const place = (hash) => model.population.get(hash) ?? 1000;
  const rows = grid.rows.filter(([hash, row]) => row.filter((value) => value !== null).length > whole / 2 || model.population.has(hash))
    .sort((a, b) => (isLast ? place(a[0]) - place(b[0]) : 0) || mean(b[1]) - mean(a[1])).slice(0, MOST_ROWS);
  const best = grid.problems.map((_, at) => Math.max(...rows.map(([, row]) => row[at] ?? -1)));
  const winners = grid.problems.map((_, at) => rows.filter(([, row]) => row[at] !== null && row[at] === best[at] && best[at] > 0).length);
  const ease = (at) => rows.reduce((sum, [, row]) => sum + (row[at] ?? 0), 0);
  const order = grid.problems.map((_, at) => at).sort((a, b) => ease(b) - ease(a));
  const body = rows.map(([hash, row], index) => {
    const wins = order.filter((at) => best[at] > 0 && row[at] === best[at]);
    const alone = wins.filter((at) => winners[at] === 1);
    const rank = model.population.get(hash);
    const name = rank && isLast ? `#${rank} ${hash.slice(0, 6)}` : hash.slice(0, 6);
    return h("tr", null, h("th", { scope: "row" }, h("button", { type: "button", class: "link", "data-hash": hash, "data-key": `row-${hash}` }, name)),
      h("td", { class: "count" }, number(mean(row), 2)), h("td", { class: "count" }, number(wins.length)), h("td", { class: "count" }, number(alone.length)),
      order.map((at, column) => scoreCell(grid.problems[at], name, row[at], alone.includes(at), index === 0 && column === 0, `${hash}-${at}`)));
  });
  const unsolved = best.filter((value) => value <= 0).length;
  const head = h("tr", null, ["prompt", "mean", "wins", "alone"].map((text) => h("th", { scope: "col" }, text)), order.map((at) => h("th", { scope: "col" }, h("span", { class: "hidden-text" }, grid.problems[at]))));
  const more = grid.rows.length - rows.length;
  return {
    element: h("table", { class: "scores", "aria-labelledby": "grid-title" }, h("thead", null, head), h("tbody", null, body)),
    note: `${plural(rows.length, "prompt")} on ${plural(grid.problems.length, "problem")}, easy ones first. ✓ full reward, a figure for a part of it, · none, empty where not scored; `
      + `a frame where no other prompt is as good. ${unsolved ? `${plural(unsolved, "problem")} solved by none.` : "Every problem is solved by at least one."}${more > 0 ? ` ${plural(more, "prompt")} with few scores not shown.` : ""}`,
  };
}

function scoreCell(problem, name, value, only, reachable, key) {
  const level = value === null ? "none" : value >= 1 ? "full" : value > 0 ? "part" : "zero";
  const text = { none: "", full: "✓", zero: "·" }[level] ?? number(value, 1).replace("0.", ".");
  return h("td", {
    class: `score${only ? " only" : ""}`, "data-level": level, "data-key": key, tabindex: reachable ? "0" : "-1",
    "aria-label": `${problem}, prompt ${name}: ${value === null ? "not scored" : `reward ${short(value)}`}${only ? ", better than every other prompt" : ""}`,
  }, text);
}

function gridKey(event) {
  const cell = event.target.closest("td.score");
  const move = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  if (!cell || !move) return;
  const row = event.currentTarget.querySelectorAll("tbody tr")[cell.parentElement.sectionRowIndex + move[0]];
  const to = row && row.cells[cell.cellIndex + move[1]];
  if (!to || !to.classList.contains("score")) return;
  event.preventDefault();
  cell.setAttribute("tabindex", "-1");
  to.setAttribute("tabindex", "0");
  to.focus();
}
