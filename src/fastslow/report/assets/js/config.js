// 5. The config: what differs between runs, then each one whole.

function configSection(root) {
  const body = h("div");
  root.append(sectionHead("config", "Config", "Every option as resolved. What looks like a key is not shown."), body);
  let drawn = "";
  return {
    update(data) {
      const now = JSON.stringify([data.runs.map((run) => [run.name, run.config]), data.panels.map((panel) => panel.settings)]);
      if (now === drawn) return;
      drawn = now;
      const flat = data.runs.map((run) => [run.name, new Map(flatten(run.config))]);
      body.replaceChildren(...differing(flat), ...flat.map(([name, options], index) => h("details", { class: "card", open: flat.length === 1 && index === 0 },
        h("summary", null, name), h("div", { class: "inside" }, table({ caption: "", head: ["option", "value"], rows: [...options], words: [0, 1] })))),
      ...data.panels.filter((panel) => panel.settings.length).map((panel) => h("details", { class: "card" }, h("summary", null, `Settings of ${panel.title}`),
        h("div", { class: "inside" }, table({ caption: "", head: ["run", "settings over the base config"], words: [0, 1], rows: panel.settings.map(({ part, settings }) => [part, flatten(settings).map(([key, value]) => `${key} = ${value}`).join(", ")]) })))));
      watchScroll(root);
    },
  };
}

function flatten(value, prefix = "") {
  if (value !== null && typeof value === "object" && !Array.isArray(value) && Object.keys(value).length) {
    return Object.entries(value).flatMap(([key, item]) => flatten(item, prefix ? `${prefix}.${key}` : key));
  }
  return [[prefix, typeof value === "string" ? value : JSON.stringify(value)]];
}

function differing(flat) {
  if (flat.length < 2) return [];
  const keys = [...new Set(flat.flatMap(([, options]) => [...options.keys()]))].filter((key) => key !== "output" && new Set(flat.map(([, options]) => options.get(key))).size > 1);
  if (!keys.length) return [h("p", { class: "note" }, "The runs have the same options.")];
  const rows = keys.map((key) => [key, ...flat.map(([, options]) => options.get(key) ?? "–")]);
  return [h("div", { class: "card table-card" }, h("h3", null, "What differs"), table({ caption: "", head: ["option", ...flat.map(([name]) => name)], rows }))];
}
