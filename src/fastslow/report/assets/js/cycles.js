// 3c. Candidates and the population over the cycles of the search.

const MEMBER = "member of the population";
const MOST_PROMPTS = 40;

function cyclesPart(choose) {
  const hidden = new Set();
  let latest = null;
  const toggle = (name) => { if (!hidden.delete(name)) hidden.add(name); update(...latest); };
  const scores = figure("chart-candidates");
  const holder = h("div");
  const stay = h("div", { class: "grid-card card", id: "population-cycles" }, h("h3", { id: "stay-title" }, "The population over the cycles"),
    h("p", { class: "note" }, "A row for each prompt that was ever in it, in the order in which they came. A figure is its mean reward on the anchor problems of that cycle; ■ where it was not scored."), holder);
  const element = h("div", { class: "charts cycles" }, scores, stay);
  holder.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-hash]");
    if (button) choose(button.getAttribute("data-hash"));
  });

  function update(run, model) {
    latest = [run, model];
    const events = run.prompts.flatMap((node) => node.events.filter((event) => event[3] !== null).map(([cycle, accepted, reason, mean]) => ({ cycle, accepted, mean, member: reason.startsWith(MEMBER) })));
    element.hidden = !events.length;
    if (!events.length) return;
    const held = keyOfFocus(scores);
    scores.update(scoreSpec(events, hidden, toggle));
    refocus(scores, held);
    const columns = populationsOf(run);
    stay.hidden = columns.length < 2;
    const focused = keyOfFocus(holder);
    holder.replaceChildren(stayTable(run, model, columns));
    watchScroll(stay);
    refocus(holder, focused);
  }
  return { element, update };
}

function scoreSpec(events, hidden, toggle) {
  const points = (wanted) => events.filter(wanted).map(({ cycle, mean }) => [cycle, mean]).sort((a, b) => a[0] - b[0]);
  const cycles = [...new Set(events.map((event) => event.cycle))].sort((a, b) => a - b);
  const best = cycles.map((cycle) => [cycle, Math.max(...events.filter((event) => event.cycle === cycle).map((event) => event.mean))]);
  const all = [
    { name: "best of the cycle", index: 0, colour: 5, data: best },
    { name: "members, scored again", index: 1, colour: 7, points: true, data: points((event) => event.member) },
    { name: "new and accepted", index: 2, colour: 4, points: true, data: points((event) => !event.member && event.accepted) },
    { name: "new, not accepted", index: 3, colour: 6, points: true, data: points((event) => !event.member && !event.accepted) },
  ].filter((each) => each.data.length);
  const series = all.filter((each) => !hidden.has(each.name));
  return { title: "Scores of the candidates", note: "On the anchor problems of their cycle; candidates that were refused before they were scored there are not shown.", x: "cycle of the search", y: "mean reward", yMin: 0, yMax: 1, scatter: true, series, legend: legend(all, hidden, toggle, (each) => swatch(each, !each.points)) };
}

// What each search started from, and the population now.
function populationsOf(run) {
  const columns = run.populations.map(([cycle, hashes]) => ({ name: `cycle ${cycle}`, cycle, hashes: new Set(hashes) }));
  return [...columns, { name: "now", cycle: null, hashes: new Set(run.population) }];
}

function stayTable(run, model, columns) {
  const ever = [...new Set(columns.flatMap((column) => [...column.hashes]))].filter((hash) => model.nodes.has(hash));
  const scoreIn = (hash, cycle) => (model.nodes.get(hash).events.find((event) => event[0] === cycle && event[2].startsWith(MEMBER) && event[3] !== null) || [])[3];
  const rows = ever.slice(-MOST_PROMPTS).map((hash) => h("tr", null,
    h("th", { scope: "row" }, h("button", { type: "button", class: "link", "data-hash": hash, "data-key": `stay-${hash}` }, hash.slice(0, 6))),
    columns.map((column) => {
      const inside = column.hashes.has(hash);
      const score = column.cycle === null ? model.nodes.get(hash).mean : scoreIn(hash, column.cycle);
      const text = !inside ? "" : score === null || score === undefined ? "■" : number(score, 2).replace(/^0\./, ".");
      return h("td", { class: "stay", "data-in": String(inside), "aria-label": `${hash.slice(0, 6)}, ${column.name}: ${inside ? `in the population${text === "■" ? "" : `, score ${text}`}` : "not in the population"}` }, text);
    })));
  const head = h("tr", null, h("th", { scope: "col" }, "prompt"), columns.map((column) => h("th", { scope: "col" }, column.cycle === null ? "now" : String(column.cycle))));
  return scrollBox("The population over the cycles", h("table", { class: "scores", "aria-labelledby": "stay-title" }, h("thead", null, head), h("tbody", null, rows)));
}
