// 3a. The family tree of prompts, and one prompt in detail.

const SHOWN = { lines: "the population and its ancestors", accepted: "every accepted prompt", all: "every candidate" };

function treeSection(root) {
  const state = { run: null, shown: "lines", open: new Map(), chosen: new Map(), full: false };
  let data = null;
  const redraw = () => update(data);
  const runs = select("prompts-run", "Run", (value) => { state.run = value; redraw(); });
  const shown = select("prompts-shown", "Show", (value) => { state.shown = value; redraw(); });
  const tree = h("div", { class: "tree" });
  const detail = h("div", { class: "detail", id: "prompt-detail", "aria-live": "polite" });
  const family = h("div", { class: "family card" }, tree, detail);
  const note = h("p", { class: "note" });
  const best = h("div");
  const grid = gridPart((hash) => choose(hash));
  const cycles = cyclesPart((hash) => choose(hash));
  root.append(sectionHead("prompts", "The family of prompts", "Who came from whom, what was changed, why, and what it was worth."),
    h("div", { class: "controls" }, runs, shown), family, note, cycles.element, grid.element, best);
  let model = null;

  function choose(hash) {
    state.chosen.set(state.run, hash);
    let at = model.nodes.get(hash);
    if (!model.visible.has(hash)) state.shown = "all";
    while (at && at.parent) { open().add(at.parent); at = model.nodes.get(at.parent); }
    redraw();
    const item = [...tree.querySelectorAll("[role=treeitem]")].find((each) => each.getAttribute("data-key") === hash);
    if (item) item.scrollIntoView({ block: "nearest" });
  }
  function open() {
    if (!state.open.has(state.run)) state.open.set(state.run, new Set(model.onLine));
    return state.open.get(state.run);
  }
  function update(found) {
    data = found;
    const withPrompts = data.runs.filter((run) => run.prompts.length);
    if (!withPrompts.some((run) => run.id === state.run)) state.run = (mostPrompts(withPrompts) || {}).id ?? null;
    runs.update(withPrompts.map((run) => [run.id, run.name]), state.run);
    shown.update(Object.entries(SHOWN), state.shown);
    const run = withPrompts.find((each) => each.id === state.run);
    for (const element of [family, shown, grid.element, cycles.element]) element.hidden = !run;
    best.replaceChildren(...bestPrompts(data));
    if (!run) {
      note.textContent = data.runs.length ? "No prompts yet: the first cycle has not ended." : "Results files keep the best prompt of each run only; name a run's directory to see its family tree.";
      return;
    }
    model = familyOf(run, state.shown);
    const left = run.left_out.prompts ? ` ${plural(run.left_out.prompts, "candidate")} left out to keep the page small.` : "";
    note.textContent = `${plural(model.roots.length ? model.visible.size : 0, "prompt")} shown of ${number(run.prompts.length)} different ones.${left}`;
    if (!model.nodes.has(state.chosen.get(state.run))) state.chosen.set(state.run, run.population[0] || run.prompts[0].hash);
    const focused = keyOfFocus(tree);
    const scroll = tree.scrollTop;
    tree.replaceChildren(treeList(model, state.chosen.get(state.run), open()));
    tree.scrollTop = scroll;
    refocus(tree, focused);
    drawDetail(model, model.nodes.get(state.chosen.get(state.run)));
    cycles.update(run, model);
    grid.update(run, model);
  }
  let drawn = "";
  function drawDetail(found, node) {
    const now = JSON.stringify([state.run, state.full, found.population.get(node.hash), node]);
    if (now === drawn) return;
    drawn = now;
    const focused = keyOfFocus(detail);
    detail.replaceChildren(...promptDetail(found, node, state.full, choose, () => { state.full = !state.full; redraw(); }));
    refocus(detail, focused);
  }
  tree.addEventListener("click", (event) => {
    const item = event.target.closest("[role=treeitem]");
    if (!item) return;
    const hash = item.getAttribute("data-key");
    if (event.target.closest(".fold")) { if (!open().delete(hash)) open().add(hash); } else state.chosen.set(state.run, hash);
    redraw();
    refocus(tree, hash);
  });
  tree.addEventListener("keydown", (event) => treeKey(event, tree, open(), (hash) => { if (hash) state.chosen.set(state.run, hash); redraw(); }));
  return { update };
}

const mostPrompts = (runs) => [...runs].sort((a, b) => b.prompts.length - a.prompts.length)[0];

function familyOf(run, shown) {
  const nodes = new Map(run.prompts.map((node) => [node.hash, node]));
  const onLine = new Set();
  for (const hash of run.population) for (let at = nodes.get(hash); at && !onLine.has(at.hash); at = nodes.get(at.parent)) onLine.add(at.hash);
  const wanted = (node) => shown === "all" || onLine.has(node.hash) || (shown === "accepted" && node.accepted) || !run.population.length;
  const visible = new Set(run.prompts.filter(wanted).map((node) => node.hash));
  const children = new Map();
  const roots = [];
  for (const node of run.prompts) {
    if (!visible.has(node.hash)) continue;
    if (node.parent && visible.has(node.parent)) children.set(node.parent, [...(children.get(node.parent) || []), node]);
    else roots.push(node);
  }
  const population = new Map(run.population.map((hash, index) => [hash, index + 1]).reverse());
  return { nodes, visible, children, roots, population, onLine };
}

function treeList(model, chosen, open) {
  let reachable = false;
  const item = (node, level) => {
    const below = model.children.get(node.hash) || [];
    const isOpen = open.has(node.hash);
    const isChosen = node.hash === chosen;
    reachable = reachable || isChosen;
    return h("li", {
      role: "treeitem", "data-key": node.hash, "aria-level": level, "aria-selected": String(isChosen), tabindex: isChosen ? "0" : "-1",
      "aria-expanded": below.length ? String(isOpen) : null, "aria-label": spoken(node, model),
    }, nodeRow(node, model, below.length, isOpen), below.length && isOpen ? h("ul", { role: "group" }, below.map((each) => item(each, level + 1))) : null);
  };
  const list = h("ul", { role: "tree", "aria-label": "Family tree of prompts" }, model.roots.map((node) => item(node, 1)));
  if (!reachable && list.firstChild) list.firstChild.setAttribute("tabindex", "0");
  return list;
}

function nodeRow(node, model, below, isOpen) {
  const place = model.population.get(node.hash);
  return h("div", { class: `node${node.accepted ? "" : " rejected"}` },
    h("span", { class: "fold", "aria-hidden": "true" }, below ? (isOpen ? "\u25be" : "\u25b8") : ""),
    h("span", { class: "mark", "aria-hidden": "true", title: node.accepted ? "accepted" : "not accepted" }, node.accepted ? "\u25cf" : "\u25cb"),
    h("span", null, node.mean === null ? "–" : number(node.mean, 2)),
    h("span", { class: "text" }, preview(node, model.nodes.get(node.parent))),
    place ? h("span", { class: "badge here" }, `#${place}`) : h("span"));
}

function spoken(node, model) {
  const place = model.population.get(node.hash);
  return [preview(node, model.nodes.get(node.parent)), node.accepted ? "accepted" : "not accepted",
    node.mean === null ? "no score" : `score ${number(node.mean, 2)}`, place ? `number ${place} of the population` : ""].filter(Boolean).join(", ");
}

// The keys of a tree as the ARIA authoring practices have them.
function treeKey(event, tree, open, redraw) {
  const items = [...tree.querySelectorAll("[role=treeitem]")];
  const item = event.target.closest("[role=treeitem]");
  if (!item) return;
  const hash = item.getAttribute("data-key");
  const at = items.indexOf(item);
  const go = (to) => {
    if (!to) return;
    for (const each of items) each.setAttribute("tabindex", each === to ? "0" : "-1");
    to.focus();
  };
  const expanded = item.getAttribute("aria-expanded");
  const actions = {
    ArrowDown: () => go(items[at + 1]),
    ArrowUp: () => go(items[at - 1]),
    Home: () => go(items[0]),
    End: () => go(items.at(-1)),
    ArrowRight: () => { if (expanded === "false") { open.add(hash); redraw(); refocus(tree, hash); } else if (expanded === "true") go(items[at + 1]); },
    ArrowLeft: () => { if (expanded === "true") { open.delete(hash); redraw(); refocus(tree, hash); } else go(item.parentElement.closest("[role=treeitem]")); },
    Enter: () => { redraw(hash); refocus(tree, hash); },
    " ": () => { redraw(hash); refocus(tree, hash); },
  };
  if (!actions[event.key]) return;
  event.preventDefault();
  actions[event.key]();
}

function promptDetail(model, node, full, choose, toggle) {
  const parent = model.nodes.get(node.parent);
  const place = model.population.get(node.hash);
  const box = (name, text) => (parent && !full ? diffBox(parent.components[name] || "", text, node.edits[name]) : plainBox(text));
  const part = (title, ...content) => h("div", null, h("h4", null, title), content);
  return [
    h("div", { class: "badges" },
      h("span", { class: `badge ${node.accepted ? "good" : "bad"}` }, node.accepted ? "● accepted" : "○ not accepted"),
      place ? h("span", { class: "badge here" }, `#${place} of the population`) : null,
      h("span", { class: "badge" }, node.mean === null ? "no score" : `score ${number(node.mean, 3)} on ${plural(node.scored, "problem")}`),
      h("span", { class: "badge" }, node.cycle ? `first in cycle ${node.cycle}` : "from the start"), h("span", { class: "badge" }, h("code", null, node.hash))),
    parent ? part("Where it comes from", lineage(model, node, choose)) : null,
    ...Object.entries(node.components).map(([name, text]) => part(parent && !full ? `What changed (${name})` : `Text (${name})`, box(name, text))),
    parent ? h("button", { type: "button", "data-key": "full", "aria-pressed": String(full), onclick: toggle }, full ? "Show what changed" : "Show the whole text") : null,
    node.feedback.length ? part("The feedback that led to it", h("ul", { class: "words" }, node.feedback.map((text) => h("li", null, text)))) : null,
    ...node.reflections.map(([said, asked]) => h("div", null, h("h4", null, "What the reflection LM said"), plainBox(said || "(nothing beside the text)"),
      h("details", { class: "prompt-text" }, h("summary", null, "What it was asked"), plainBox(asked)))),
    node.events.length ? part("What happened to it", h("ul", { class: "words" }, node.events.map(([cycle, accepted, reason, mean, count]) => h("li", null,
      `cycle ${cycle}: ${reason}${mean === null ? "" : `, score ${number(mean, 3)}`}${count > 1 ? ` (${count} times)` : ""}`)))) : null,
  ].filter(Boolean);
}

function lineage(model, node, choose) {
  const line = [];
  for (let at = model.nodes.get(node.parent); at && line.length < 100; at = model.nodes.get(at.parent)) line.unshift(at);
  return h("div", { class: "path" }, line.map((each, index) => [index ? h("span", { class: "soft", "aria-hidden": "true" }, "›") : null,
    h("button", { type: "button", class: "link", "data-key": `line-${each.hash}`, onclick: () => choose(each.hash) }, index || each.parent ? short8(each) : "seed prompt")]),
  h("span", { class: "soft" }, "› this one"));
}

const short8 = (node) => `${node.hash.slice(0, 6)}${node.mean === null ? "" : ` (${number(node.mean, 2)})`}`;

function bestPrompts(data) {
  const panels = data.panels.filter((panel) => panel.best_prompts.length);
  return panels.map((panel) => h("details", { class: "card" }, h("summary", null, `Best prompt of every run: ${panel.title}`),
    h("div", { class: "inside" }, panel.best_prompts.map(({ part, text }) => h("div", null, h("h4", { class: "small soft" }, part), plainBox(text))))));
}
