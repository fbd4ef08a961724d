// How series differ: in colour, in dash and in marker, so that each of the three is enough. A method has one colour wherever
// it is drawn: the data say which.

const DASHES = ["solid", [7, 4], [2, 3], [10, 3, 2, 3], [14, 4], [5, 2, 1, 2, 1, 2], [4, 6], [1, 5]];
const SYMBOLS = ["circle", "rect", "triangle", "diamond", "emptyCircle", "emptyRect", "emptyTriangle", "emptyDiamond"];
const PATHS = {
  circle: "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0Z", rect: "M-3.6,-3.6h7.2v7.2h-7.2Z", triangle: "M0,-4.4L4.4,3.6H-4.4Z",
  diamond: "M0,-4.8L4.8,0L0,4.8L-4.8,0Z",
};

// Of a series, or of anything with its `index` and `colour`.
const mark = ({ index, colour }) => ({
  colour: `--s${(colour ?? index) % 8}`, dash: DASHES[index % 8], symbol: SYMBOLS[(index + Math.floor(index / 8)) % 8],
});

function swatch(series, line = true) {
  const { colour, dash, symbol } = mark(series);
  const shape = symbol.replace("empty", "").replace(/^./, (letter) => letter.toLowerCase());
  const paint = `var(${colour})`;
  return svg("svg", { width: 34, height: 14, viewBox: "-17 -7 34 14", "aria-hidden": "true" },
    line ? svg("line", { x1: -16, x2: 16, y1: 0, y2: 0, stroke: paint, "stroke-width": 2, "stroke-dasharray": dash === "solid" ? null : dash.join(" ") }) : null,
    svg("path", { d: PATHS[shape], fill: symbol.startsWith("empty") ? "var(--card)" : paint, stroke: paint, "stroke-width": 1.6 }));
}

// The parts of a stacked bar differ in colour and in pattern.
const FILLS = [
  { colour: "--s4", decal: null }, { colour: "--s5", decal: { dashArrayX: [1, 0], dashArrayY: [2, 5], rotation: -Math.PI / 4 } },
  { colour: "--s6", decal: { symbol: "circle", dashArrayX: [[6, 6], [0, 6, 6, 0]], dashArrayY: [6, 0], symbolSize: 0.6 } },
  { colour: "--s7", decal: { dashArrayX: [1, 0], dashArrayY: [2, 4], rotation: 0 } },
];

function fillSwatch({ index }) {
  const paint = `var(${FILLS[index].colour})`;
  const lines = { 1: "M2,12L12,2M-2,8L8,-2M6,16L18,4", 3: "M0,3H16M0,7H16M0,11H16" }[index];
  return svg("svg", { width: 16, height: 14, viewBox: "0 0 16 14", "aria-hidden": "true" },
    svg("rect", { width: 16, height: 14, rx: 3, fill: paint }),
    lines ? svg("path", { d: lines, stroke: "var(--card)", "stroke-width": 1.4, fill: "none" }) : null,
    index === 2 ? [[4, 4], [11, 4], [7.5, 9.5]].map(([x, y]) => svg("circle", { cx: x, cy: y, r: 1.5, fill: "var(--card)" })) : null);
}

// `items` are series, or parts of bars: {name, index, colour}.
function legend(items, hidden, ontoggle, picture) {
  return h("ul", { class: "legend", "aria-label": "Show or hide" }, items.map((item) => h("li", null,
    h("button", {
      type: "button", "data-key": `legend-${item.index}-${item.name}`, "aria-pressed": hidden.has(item.name) ? "false" : "true", onclick: () => ontoggle(item.name),
    }, picture(item), item.name))));
}
