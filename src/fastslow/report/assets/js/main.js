// Puts the sections together; light, dark, or what the system has.

const SCHEMES = ["auto", "light", "dark"];
const system = matchMedia("(prefers-color-scheme: dark)");

function remembered() {
  try { return localStorage.getItem("fastslow-theme"); } catch { return null; }
}

function remember(scheme) {
  try { localStorage.setItem("fastslow-theme", scheme); } catch { /* a page from disk may not remember */ }
}

let scheme = SCHEMES.includes(remembered()) ? remembered() : "auto";

function paint() {
  document.documentElement.dataset.theme = scheme === "auto" ? (system.matches ? "dark" : "light") : scheme;
  byId("theme").textContent = { auto: "◐ Auto", light: "○ Light", dark: "● Dark" }[scheme];
  byId("theme").setAttribute("aria-label", `Colour scheme: ${scheme}. Press to change.`);
  for (const chart of charts.values()) chart.redraw();
}

system.addEventListener("change", paint);
byId("theme").addEventListener("click", () => {
  scheme = SCHEMES[(SCHEMES.indexOf(scheme) + 1) % SCHEMES.length];
  remember(scheme);
  paint();
});

const data = JSON.parse(byId("data").textContent);
paint();
const parts = [summarySection(byId("summary")), curvesSection(byId("curves")), treeSection(byId("prompts")), samplesSection(byId("samples")), configSection(byId("config"))];

function showAll(found) {
  methods = found.methods;
  for (const part of parts) part.update(found);
  byId("made").textContent = `Made by fastslow ${found.version || ""} on ${found.made}. Charts: Apache ECharts.`;
}

showAll(data);
document.body.dataset.ready = "true";
if (document.body.dataset.live === "true") follow(data, showAll);
