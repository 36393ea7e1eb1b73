/** What all parts of the page need: elements, texts that are written only when they change, numbers. */

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
  if (ms < 10) return `${tenths(ms)} ms`;
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

const time = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});
const minutes = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

/** A moment of the day, from milliseconds since 1970. */
export const clock = (ms) => time.format(ms);
export const hour = (ms) => minutes.format(ms);

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

/** Make an SVG element with attributes. */
export function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
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

/** Make the rows of a list or table as many as needed, with `create`, and return them. */
export function rowsOf(parent, amount, create) {
  while (parent.children.length > amount) parent.lastElementChild.remove();
  while (parent.children.length < amount) parent.append(create());
  return [...parent.children];
}

/** Draw a bar behind a number: `share` of the room, 0 to 1. */
export function fill(element, share) {
  const value = Number.isFinite(share) ? Math.min(1, Math.max(0, share)).toFixed(3) : "0";
  if (element.style.getPropertyValue("--share") !== value) element.style.setProperty("--share", value);
}
