/** What both halves of the page need: elements, texts that are written only when they change, numbers. */

export const NONE = "–";

/** A formatter in the user's locale; what is no number is a dash. */
function formatter(options) {
  const format = new Intl.NumberFormat(undefined, options);
  return (n) => (Number.isFinite(n) ? format.format(n) : NONE);
}
const decimals = (n) => formatter({ minimumFractionDigits: n, maximumFractionDigits: n });

export const count = decimals(0);
export const fraction = decimals(2);
export const compact = formatter({
  notation: "compact", minimumSignificantDigits: 4, maximumSignificantDigits: 4,
});
const tenths = decimals(1);
const fourDecimals = decimals(4);
const sixDecimals = decimals(6);

export const rate = (n) => (n < 100 ? tenths : count)(n);
export const price = (n) => (n >= 1000 ? fraction : n >= 10 ? fourDecimals : sixDecimals)(n);

/** Milliseconds, or seconds when there are many. */
export function duration(ms) {
  if (ms < 1) return "< 1 ms";
  return ms < 1000 ? `${count(ms)} ms` : `${tenths(ms / 1000)} s`;
}

/** The two largest units of an age. */
export function age(seconds) {
  const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = Math.max(0, units.findIndex(([size]) => seconds >= size));
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  return units.slice(first, first + 2).map(([size, name], index) => {
    const amount = index ? (seconds % units[first][0]) / size : seconds / size;
    return `${Math.floor(amount)} ${name}`;
  }).join(" ");
}

export function bytes(n) {
  return n >= 2 ** 30 ? `${tenths(n / 2 ** 30)} GB` : `${count(n / 2 ** 20)} MB`;
}

export function median(values) {
  const sorted = Float64Array.from(values).sort();
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

export const byId = (id) => document.getElementById(id);

/** Make an element: `make("td", { className: "price" }, "text or element", …)`. */
export function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** Write a text if it is not there already: an untouched node costs no layout. */
export function write(element, text) {
  const node = element.firstChild ?? element.appendChild(document.createTextNode(""));
  if (node.data !== text) node.data = text;
}

/** Set a `data-` attribute if it differs; undefined takes it away. */
export function mark(element, name, value) {
  if (element.dataset[name] === value) return;
  if (value === undefined) delete element.dataset[name];
  else element.dataset[name] = value;
}
