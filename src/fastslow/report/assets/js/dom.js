// Elements. Text goes in as text nodes and attributes by name: no string of the data is ever read as markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const h = (tag, properties, ...children) => fill(document.createElement(tag), properties, children);
const svg = (tag, properties, ...children) => fill(document.createElementNS(SVG, tag), properties, children);
const byId = (id) => document.getElementById(id);

function table({ caption, head, rows, words = [] }) {
  const cell = (index) => (words.includes(index) ? "words" : null);
  return scrollBox(caption || "table",
    h("table", null,
      caption ? h("caption", null, caption) : null,
      h("thead", null, h("tr", null, head.map((name, index) => h("th", { scope: "col", class: cell(index) }, name)))),
      h("tbody", null, rows.map((row) => h("tr", null, row.map((value, index) => index === 0
        ? h("th", { scope: "row" }, value) : h("td", { class: cell(index) }, value)))))));
}

// What is wider than its place says so, and can be scrolled with the keyboard.
function scrollBox(label, content) {
  return h("div", { class: "wide-box" }, h("p", { class: "scroll-hint", hidden: true }, "Wider than the page: scroll sideways for the other columns →"),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, content));
}

const widths = new ResizeObserver((entries) => entries.forEach(({ target }) => tellWidth(target)));

function tellWidth(box) {
  const hint = box.previousElementSibling;
  if (hint && hint.classList.contains("scroll-hint")) hint.hidden = box.scrollWidth <= box.clientWidth + 1;
}

// Call it after tables were put in place: whether they fit is known only then.
function watchScroll(root) {
  for (const box of root.querySelectorAll(".wide-box > .scroll")) { widths.observe(box); tellWidth(box); }
}

function sectionHead(id, title, lead) {
  return h("header", null, h("h2", { id: `${id}-title` }, title), lead ? h("p", { class: "soft" }, lead) : null);
}

// A drop-down whose options may change while it stays where it is, so that a live update takes nobody's focus.
function select(id, label, onchange) {
  const list = h("select", { id, onchange: () => onchange(list.value) });
  const field = h("label", { class: "field" }, label, list);
  let known = "";
  field.update = (options, value) => {
    const found = JSON.stringify(options);
    if (found !== known) {
      known = found;
      list.replaceChildren(...options.map(([key, text]) => h("option", { value: key }, text)));
    }
    list.value = value;
    field.hidden = options.length < 2;
  };
  return field;
}

function segments(id, legend, options, value, onchange) {
  const labels = new Map(options.map(([key, text]) => [key, h("label", null,
    h("input", { type: "radio", name: id, value: key, checked: key === value, onchange: () => onchange(key) }), text)]));
  const field = h("fieldset", { class: "field" }, h("legend", { class: "small" }, legend), h("div", { class: "segments" }, [...labels.values()]));
  field.show = (key, shown) => { labels.get(key).hidden = !shown; };
  field.set = (key) => { labels.get(key).firstChild.checked = true; };
  return field;
}
