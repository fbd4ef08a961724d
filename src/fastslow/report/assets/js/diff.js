// What changed from a prompt to its child. `edits` come with the data: [start, end, first, last, words], lines [start, end) of
// the parent became lines [first, last) of the child. `words` has, for each such line, what changed within it, by characters.

function diffBox(before, after, edits) {
  const [old, lines] = [before.split("\n"), after.split("\n")];
  const box = h("div", { class: "text-box", "aria-label": "Changes against the parent", role: "group" });
  const same = (from, to) => lines.slice(from, to).forEach((line) => box.append(h("div", null, line)));
  let at = 0;
  for (const [start, end, first, last, words] of edits) {
    same(at, first);
    const marks = (from, to) => (index) => words[index] && words[index].map((edit) => edit.slice(from, to));
    changedLines(box, "removed", "del", old.slice(start, end), marks(0, 2));
    changedLines(box, "added", "ins", lines.slice(first, last), marks(2, 4));
    at = last;
  }
  same(at, lines.length);
  return box;
}

function changedLines(box, kind, tag, lines, marks) {
  lines.forEach((line, index) => {
    const spoken = h("span", { class: "hidden-text" }, `${kind}: `);
    const ranges = marks(index);
    box.append(h("div", { class: kind }, spoken, ranges ? marked(line, tag, ranges) : line));
  });
}

// A line with some ranges of its characters marked; a character is a code point, as in the data.
function marked(line, tag, ranges) {
  const characters = [...line];
  const text = (from, to) => characters.slice(from, to).join("");
  const out = [];
  let at = 0;
  for (const [from, to] of ranges) {
    out.push(text(at, from), from < to ? h(tag, null, text(from, to)) : "");
    at = to;
  }
  return [...out, text(at)];
}

function plainBox(text) {
  return h("div", { class: "text-box" }, text.split("\n").map((line) => h("div", null, line)));
}

// One line that says what a child has and its parent has not.
function preview(node, parent) {
  if (!parent) return Object.values(node.components).join("\n");
  const changed = (texts, from, to) => Object.entries(node.edits).flatMap(([name, edits]) => {
    const lines = (texts[name] || "").split("\n");
    return edits.flatMap((edit) => lines.slice(edit[from], edit[to])).map((line) => line.trim()).filter(Boolean);
  });
  const added = changed(node.components, 2, 3);
  const removed = changed(parent.components, 0, 1);
  if (added.length) return `+ ${added.join(" / ")}`;
  return removed.length ? `\u2212 ${removed.join(" / ")}` : Object.values(node.components).join("\n");
}
