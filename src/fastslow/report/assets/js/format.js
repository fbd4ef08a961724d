// Numbers as people read them, with their units.

function number(value, digits = 0) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

function short(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 10000) return value.toLocaleString("en-US", { notation: "compact", maximumFractionDigits: 1 });
  if (Number.isInteger(value)) return number(value);
  return number(value, size >= 100 ? 0 : size >= 10 ? 1 : size >= 0.1 ? 3 : 4);
}

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 60) return `${number(seconds, seconds < 10 ? 1 : 0)} s`;
  if (seconds < 5400) return `${number(seconds / 60, 1)} min`;
  return `${number(seconds / 3600, 1)} h`;
}

const dollars = (value) => (value === null || value === undefined ? "not known" : `${number(value, value > 0 && value < 1 ? 4 : 2)} USD`);
const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;
let methods = {};
const methodName = (method) => (Object.hasOwn(methods, method) ? methods[method][0] : method);
