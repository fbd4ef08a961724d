// What the charting library is told: axes, lines with bands, stacked bars.

const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif';

function frame() {
  const soft = cssVariable("--soft");
  return {
    animation: false,
    textStyle: { fontFamily: FONT, color: soft, fontSize: 12 },
    tooltip: {
      backgroundColor: cssVariable("--card"), borderColor: cssVariable("--line-strong"), textStyle: { color: cssVariable("--ink") },
      confine: true, transitionDuration: 0, extraCssText: "border-radius:10px;box-shadow:0 6px 24px rgb(0 0 0 / 14%);padding:.6rem .75rem",
    },
  };
}

function axis(name, position, more) {
  return {
    type: "value", name, nameLocation: "middle", nameGap: position === "x" ? 30 : 46, nameTextStyle: { color: cssVariable("--soft"), fontSize: 12, lineHeight: 16 },
    axisLabel: { color: cssVariable("--soft"), hideOverlap: true, formatter: axisNumber },
    axisLine: { show: position === "x", lineStyle: { color: cssVariable("--line-strong") } }, axisTick: { show: false },
    splitLine: { show: position === "y", lineStyle: { color: cssVariable("--line") } }, ...more,
  };
}

function axisNumber(value) {
  // From a thousand on, so that no axis has two kinds of numbers.
  if (Math.abs(value) >= 1000) return value.toLocaleString("en-US", { notation: "compact", maximumFractionDigits: 2 });
  return String(Number(value.toPrecision(4)));
}

function lineOption(spec) {
  const series = [];
  for (const each of spec.series) {
    each.drawn = series.length;
    series.push(line(each));
  }
  for (const each of spec.series) {
    if (each.data.some((point) => point[2] !== undefined && point[2] !== null)) series.push(band(each));
  }
  return {
    ...frame(), series,
    grid: { left: 62, right: 18, top: 14, bottom: spec.x.includes("\n") ? 62 : 46 },
    xAxis: axis(spec.x, "x", { min: spec.xMin }),
    yAxis: axis(spec.y, "y", spec.yLog ? { type: "log" } : { min: spec.yMin, max: spec.yMax }),
    tooltip: { ...frame().tooltip, trigger: spec.scatter ? "item" : "axis", axisPointer: { type: "line", snap: true, lineStyle: { color: cssVariable("--line-strong") } }, formatter: (found) => lineTip(spec, [found].flat()) },
  };
}

function line({ name, index, colour: place, points, data }) {
  const { colour, dash, symbol } = mark({ index, colour: place });
  const paint = cssVariable(colour);
  // Beyond some points markers would be a caterpillar: every tenth or so is enough to tell series apart.
  const every = points ? 1 : Math.max(1, Math.ceil(data.length / 28));
  return {
    type: "line", name, data: data.map((point) => [point[0], point[1]]), connectNulls: true,
    symbol, symbolSize: (_, at) => (at.dataIndex % every === (index * 3) % every ? 7 : 0), showAllSymbol: true, showSymbol: true,
    lineStyle: { color: paint, width: points ? 0 : 2, type: dash, opacity: points ? 0 : 1 }, itemStyle: { color: paint, borderColor: paint, borderWidth: 1.6 },
    emphasis: { scale: 1.4 }, z: 3 + index,
  };
}

// The band is one closed outline, along the highest values and back along the lowest: what the fill adds on the way there
// below the lowest it takes away on the way back.
function band({ index, colour, data }) {
  const known = data.filter((point) => point[2] !== undefined && point[2] !== null);
  const outline = [...known.map((point) => [point[0], point[3]]), ...known.toReversed().map((point) => [point[0], point[2]])];
  return {
    type: "line", name: `band ${index}`, data: outline, symbol: "none", silent: true, tooltip: { show: false }, z: 2,
    lineStyle: { width: 0, opacity: 0 }, areaStyle: { color: cssVariable(mark({ index, colour }).colour), opacity: 0.16, origin: "start" },
  };
}

function lineTip(spec, found) {
  const shown = found.filter((each) => each.seriesIndex < spec.series.length);
  if (!shown.length) return "";
  return h("div", { class: "tip" }, h("span", { class: "soft" }, `${axisWords(spec.x)}: ${short(shown[0].value[0])}`),
    shown.map((each) => {
      const series = spec.series[each.seriesIndex];
      const [, , low, high] = series.data[each.dataIndex] || [];
      const range = low === undefined || low === null ? "" : ` (${short(low)} to ${short(high)})`;
      return h("div", null, swatch(series), h("span", null, series.name), h("b", null, short(each.value[1]) + range));
    }));
}

function barOption(spec) {
  const longest = Math.min(180, 14 + 7.2 * Math.max(...spec.names.map((name) => name.length)));
  return {
    ...frame(),
    aria: { enabled: true, label: { enabled: false }, decal: { show: true } },
    grid: { left: longest, right: 22, top: 8, bottom: 44 },
    xAxis: axis(spec.unit, "x", { min: 0, splitLine: { show: true, lineStyle: { color: cssVariable("--line") } } }),
    yAxis: {
      type: "category", data: spec.names, inverse: true, axisTick: { show: false }, axisLine: { lineStyle: { color: cssVariable("--line-strong") } },
      axisLabel: { color: cssVariable("--ink"), width: longest - 12, overflow: "truncate" },
    },
    series: spec.parts.map((part) => {
      const { colour, decal } = FILLS[part.index];
      return {
        type: "bar", name: part.name, stack: "all", data: part.values, barMaxWidth: 24,
        itemStyle: { color: cssVariable(colour), decal: decal ? { color: "rgba(255,255,255,0.55)", ...decal } : { symbol: "none" }, borderColor: cssVariable("--card"), borderWidth: 1 },
      };
    }),
    tooltip: { ...frame().tooltip, trigger: "axis", axisPointer: { type: "none" }, formatter: (found) => barTip(spec, found) },
  };
}

function barTip(spec, found) {
  return h("div", { class: "tip" }, h("span", { class: "soft" }, found[0].name), found.map((each) => h("div", null,
    fillSwatch(spec.parts[each.seriesIndex]), h("span", null, each.seriesName), h("b", null, spec.format(each.value)))));
}
