/** A figure over time: its value now in large, its lines below, and a cursor that all charts share. */

import { NONE, clock, hour, make, mark, svg, write } from "./view.js";

const HEIGHT = 132;
const PAD = { top: 8, right: 8, bottom: 18, left: 46 };
const HOLE_MS = 3500; // two samples further apart than this are not joined: nobody knows what was between
const STEPS_MS = [10e3, 15e3, 30e3, 60e3, 120e3, 300e3];

/** The least round number, 1, 2 or 5 times a power of ten, that is not below `value`. */
export function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 5, 10].find((step) => step * power >= value * 0.999);
}

export class Chart {
  #lines;
  #format;
  #tick;
  #least;
  #of;
  #values;
  #note;
  #plot = svg("svg", { class: "plot", "aria-hidden": "true" });
  #empty;
  #width = 0;
  #last = null; // what was rendered last, for keys

  /**
   * @param title what is shown
   * @param lines {key of a sample, name, dashed}; the first one is the large number
   * @param format a value as text, with its unit
   * @param tick the same, short, for the axis
   * @param least the axis reaches at least so far
   * @param of the bound that is told beside the number, from the last reading, or ""
   * @param cursor {move(ms or null)}: the cursor of all charts
   */
  constructor({ id, title, lines, format, tick, least, of = () => "", empty = "" }, cursor) {
    this.#lines = lines;
    this.#format = format;
    this.#tick = tick;
    this.#least = least;
    this.#of = of;
    this.#values = make("div", { className: "values" });
    this.#note = make("p", { className: "note of" });
    this.#empty = make("p", { className: "empty", hidden: true }, empty);
    this.frame = make("div", { className: "frame", tabIndex: 0 }, this.#empty);
    this.frame.append(this.#plot);
    this.frame.setAttribute("role", "slider");
    this.frame.setAttribute("aria-label", `${title}, over time`);
    const head = make("h3", { id: `${id}-title` }, title);
    this.element = make("article", { className: "chart", id }, head, this.#values, this.#note, this.frame);
    this.element.setAttribute("aria-labelledby", head.id);
    this.#listen(cursor);
    new ResizeObserver(([entry]) => {
      this.#width = Math.round(entry.contentRect.width);
      cursor.redraw();
    }).observe(this.frame);
  }

  #listen(cursor) {
    const { frame } = this;
    frame.addEventListener("pointermove", (event) => {
      const { from, to } = this.#last ?? {};
      const share = (event.offsetX - PAD.left) / (this.#width - PAD.left - PAD.right);
      if (from) cursor.move(from + Math.min(1, Math.max(0, share)) * (to - from));
    });
    for (const over of ["pointerleave", "blur"]) frame.addEventListener(over, () => cursor.move(null));
    frame.addEventListener("keydown", (event) => {
      if (!this.#last) return;
      const { from, to, cursor: at } = this.#last;
      const step = event.shiftKey ? 10_000 : 1000;
      const next = {
        ArrowLeft: (at ?? to) - step, ArrowRight: (at ?? to) + step, Home: from, End: to, Escape: null,
      }[event.key];
      if (next === undefined) return;
      event.preventDefault();
      cursor.move(next === null || next > to ? null : Math.max(from, next));
    });
  }

  /**
   * @param arms as `armsOf` gives them
   * @param view {from, to, cursor}: milliseconds since 1970; the cursor may be null
   */
  render(arms, view) {
    this.#last = view;
    const shown = arms.map((arm) => arm.samples.filter((one) => one.at >= view.from - HOLE_MS));
    this.#renderValues(arms, view, shown);
    if (this.#width) this.#draw(arms, view, shown);
  }

  #renderValues(arms, view, shown) {
    const { from, to, cursor } = view;
    const children = this.#values.children;
    while (children.length > arms.length) this.#values.lastElementChild.remove();
    const spoken = arms.map((arm, index) => {
      const one = nearest(shown[index], cursor);
      const texts = this.#lines.map((line) => (one ? this.#format(one[line.key]) : NONE));
      const value = children[index] ?? this.#values.appendChild(this.#value());
      mark(value, "arm", arm.colour);
      mark(value, "past", arm.source.isLive || cursor ? undefined : "");
      write(value.firstChild, arms.length > 1 ? arm.letter : "");
      texts.forEach((text, place) => write(value.children[1 + place].lastChild, text));
      return `${arms.length > 1 ? `${arm.label} ` : ""}${texts.join(", ")}`;
    });
    const data = arms[0]?.source.now?.data;
    write(this.#note, data ? this.#of(data) : "");
    this.frame.setAttribute("aria-valuemin", "0");
    this.frame.setAttribute("aria-valuemax", String(Math.round((to - from) / 1000)));
    this.frame.setAttribute("aria-valuenow", String(Math.round(((cursor ?? to) - from) / 1000)));
    this.frame.setAttribute("aria-valuetext", `${cursor ? clock(cursor) : "now"}: ${spoken.join("; ") || "no figures"}`);
  }

  #value() {
    const parts = this.#lines.map((line) =>
      make("span", { className: "part" }, make("small", {}, line.name ? `${line.name} ` : ""), make("b", {}, NONE)));
    return make("div", { className: "value" }, make("span", { className: "letter" }, ""), ...parts);
  }

  #draw(arms, { from, to, cursor }, shown) {
    const [width, height] = [this.#width, HEIGHT];
    const inner = { width: width - PAD.left - PAD.right, height: height - PAD.top - PAD.bottom };
    const values = shown.flatMap((samples) =>
      samples.flatMap((one) => this.#lines.map((line) => one[line.key]).filter(Number.isFinite)));
    const top = roundUp(Math.max(this.#least, ...values));
    const x = (at) => PAD.left + ((at - from) / (to - from)) * inner.width;
    const y = (value) => PAD.top + inner.height * (1 - value / top);
    const parts = [];
    for (const share of [0, 0.5, 1]) {
      const at = y(top * share);
      parts.push(svg("line", { class: "grid", x1: PAD.left, x2: width - PAD.right, y1: at, y2: at }));
      parts.push(svg("text", { class: "tick", x: PAD.left - 6, y: at + 3.5, "text-anchor": "end" },
        top * share ? this.#tick(top * share) : "0"));
    }
    const step = STEPS_MS.find((one) => ((to - from) / one) * 64 <= inner.width) ?? STEPS_MS.at(-1);
    const zone = new Date(to).getTimezoneOffset() * 60e3;
    for (let at = Math.ceil((from - zone) / step) * step + zone; at <= to; at += step) {
      if (x(at) < PAD.left + 14 || x(at) > width - PAD.right - 14) continue;
      parts.push(svg("text", { class: "tick", x: x(at), y: height - 4, "text-anchor": "middle" },
        step < 60e3 ? clock(at) : hour(at)));
    }
    for (const [start, end] of holes(shown[0] ?? [], from, to)) {
      parts.push(svg("rect", { class: "hole", x: x(start), y: PAD.top, width: x(end) - x(start), height: inner.height }));
    }
    arms.forEach((arm, index) => {
      for (const line of this.#lines) {
        const d = path(shown[index], line.key, x, y);
        const kind = `line${line.dashed ? " dashed" : ""}`;
        parts.push(svg("path", { class: kind, d, "data-arm": arm.colour, "data-series": line.key }));
      }
    });
    if (cursor) {
      parts.push(svg("line", { class: "cursor", x1: x(cursor), x2: x(cursor), y1: PAD.top, y2: PAD.top + inner.height }));
      arms.forEach((arm, index) => {
        const one = nearest(shown[index], cursor);
        for (const line of one ? this.#lines : []) {
          if (!Number.isFinite(one[line.key])) continue;
          parts.push(svg("circle", { class: "dot", cx: x(one.at), cy: y(one[line.key]), r: 3, "data-arm": arm.colour }));
        }
      });
    }
    this.#plot.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.#plot.replaceChildren(...parts);
    this.#empty.hidden = !this.#empty.textContent || !values.length || values.some(Boolean);
  }
}

/** The sample at a moment, or the last one; undefined where none is near. */
function nearest(samples, at) {
  if (!at) return samples.at(-1);
  let best;
  for (const one of samples) {
    if (Math.abs(one.at - at) <= Math.abs((best?.at ?? Infinity) - at)) best = one;
  }
  return best && Math.abs(best.at - at) < HOLE_MS ? best : undefined;
}

/** Stretches without samples, after the first one. */
function holes(samples, from, to) {
  const ends = samples.map((one) => one.at);
  return [...ends.map((at, index) => [at, ends[index + 1] ?? to])]
    .filter(([start, end]) => end - start > HOLE_MS)
    .map(([start, end]) => [Math.max(start, from), end]);
}

function path(samples, key, x, y) {
  let d = "";
  let last = -Infinity;
  for (const one of samples) {
    if (!Number.isFinite(one[key])) continue;
    d += `${one.at - last > HOLE_MS ? "M" : "L"}${x(one.at).toFixed(1)},${y(one[key]).toFixed(1)}`;
    last = one.at;
  }
  return d;
}
