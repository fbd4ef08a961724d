// What changed from a prompt to its child: by lines, and by words within a line that was rewritten.

const LARGEST_DIFF = 1500000;

// [["same" | "removed" | "added", item], ...] by the longest common subsequence.
function difference(before, after) {
  const [n, m] = [before.length, after.length];
  if (n * m > LARGEST_DIFF) return [...before.map((item) => ["removed", item]), ...after.map((item) => ["added", item])];
  const width = m + 1;
  const length = new Uint32Array((n + 1) * width);
  for (let i = n - 1; i >= 0; i -= 1) {
    for (let j = m - 1; j >= 0; j -= 1) {
      length[i * width + j] = before[i] === after[j] ? length[(i + 1) * width + j + 1] + 1 : Math.max(length[(i + 1) * width + j], length[i * width + j + 1]);
    }
  }
  const out = [];
  let [i, j] = [0, 0];
  while (i < n && j < m) {
    if (before[i] === after[j]) { out.push(["same", before[i]]); i += 1; j += 1; }
    else if (length[(i + 1) * width + j] >= length[i * width + j + 1]) { out.push(["removed", before[i]]); i += 1; }
    else { out.push(["added", after[j]]); j += 1; }
  }
  return [...out, ...before.slice(i).map((item) => ["removed", item]), ...after.slice(j).map((item) => ["added", item])];
}

const words = (text) => text.split(/(\s+)/).filter((word) => word !== "");

function diffBox(before, after) {
  const lines = difference(before.split("\n"), after.split("\n"));
  const box = h("div", { class: "text-box", "aria-label": "Changes against the parent", role: "group" });
  for (let at = 0; at < lines.length;) {
    const removed = run(lines, at, "removed");
    const added = run(lines, at + removed.length, "added");
    if (!removed.length && !added.length) {
      box.append(h("div", null, lines[at][1]));
      at += 1;
      continue;
    }
    const paired = removed.length === added.length ? removed.map((line, index) => difference(words(line), words(added[index]))) : null;
    removed.forEach((line, index) => box.append(changedLine("removed", "del", line, paired && paired[index])));
    added.forEach((line, index) => box.append(changedLine("added", "ins", line, paired && paired[index])));
    at += removed.length + added.length;
  }
  return box;
}

function run(lines, from, kind) {
  let to = from;
  while (to < lines.length && lines[to][0] === kind) to += 1;
  return lines.slice(from, to).map((line) => line[1]);
}

function changedLine(kind, tag, line, parts) {
  const spoken = h("span", { class: "hidden-text" }, kind === "added" ? "added: " : "removed: ");
  const shared = parts && parts.some(([what, word]) => what === "same" && word.trim());
  if (!shared) return h("div", { class: kind }, spoken, line);
  return h("div", { class: kind }, spoken, parts.filter(([what]) => what === "same" || what === kind).map(([what, word]) => (what === "same" ? word : h(tag, null, word))));
}

function plainBox(text) {
  return h("div", { class: "text-box" }, text.split("\n").map((line) => h("div", null, line)));
}

// One line that says what a child has and its parent has not.
function preview(components, parent) {
  const text = Object.values(components).join("\n");
  if (!parent) return text;
  const lines = difference(Object.values(parent.components).join("\n").split("\n"), text.split("\n"));
  const added = lines.filter(([kind]) => kind === "added").map((line) => line[1].trim()).filter(Boolean);
  const removed = lines.filter(([kind]) => kind === "removed").map((line) => line[1].trim()).filter(Boolean);
  if (added.length) return `+ ${added.join(" / ")}`;
  return removed.length ? `\u2212 ${removed.join(" / ")}` : text;
}
