/** The price board: one row per token, and what became of the messages while the connection was away. */

import { NONE, byId, compact, count, duration, fraction, make, mark, price, svg, write } from "./view.js";

export const TOKENS = ["BTC", "ETH", "SOL", "ODIN", "DOGE", "USDT", "BNB", "XRP", "ADA", "MATIC"];

const FLASH_MS = 350;
const POINT_MS = 500; // one point of a line at most
const SPAN_MS = 90_000; // of a line
const JOIN_MS = 5_000; // two points further apart are not joined
const SPARK = { width: 120, height: 28, margin: 3 };
const CATCH_UP_MS = 5_000; // after coming back, what is old is what was missed
const SLACK_MS = 60; // by so much the clocks may differ

/** One token: its latest message, its last minute and a half, its row. */
class Row {
  #message = null;
  #points = []; // {at, value, resumed} and, where messages are missing, {at, gap}
  #flash;
  #flashUntil = 0;
  #dirty = false;
  #cells;
  #spark = svg("svg", {
    viewBox: `0 0 ${SPARK.width} ${SPARK.height}`, preserveAspectRatio: "none", "aria-hidden": "true",
  });

  constructor(token) {
    const cell = (name, ...children) => {
      const element = make("td", { className: name }, ...children);
      element.setAttribute("role", "cell");
      return element;
    };
    const head = make("th", { className: "token", scope: "row" }, token);
    head.setAttribute("role", "rowheader");
    this.#cells = {
      price: cell("price", NONE), change: cell("change", NONE), spark: cell("spark", this.#spark),
      volume: cell("volume", NONE), seq: cell("seq", NONE),
    };
    this.element = make("tr", {}, head, ...Object.values(this.#cells));
    this.element.setAttribute("role", "row");
    this.element.dataset.token = token;
  }

  /** @param at when it was published, by this machine's clock, milliseconds since 1970 */
  take(message, at, resumed) {
    const value = message.data?.price;
    if (!Number.isFinite(value)) return; // anybody may publish anything
    const last = this.#message?.data.price;
    if (last !== undefined && last !== value) {
      this.#flash = value > last ? "up" : "down";
      this.#flashUntil = performance.now() + FLASH_MS;
    }
    const point = { at, value, resumed };
    const newest = this.#points.at(-1);
    const before = this.#points.at(-2);
    const joins = newest && !newest.gap && newest.resumed === resumed && before && at - before.at < POINT_MS;
    if (joins) this.#points[this.#points.length - 1] = point;
    else this.#points.push(point);
    this.#message = message;
    this.#dirty = true;
  }

  miss(at) {
    this.#points.push({ at, gap: true });
    this.#dirty = true;
  }

  /** Bring the row up to date. Returns when it wants the next render by itself, or Infinity. */
  render(now) {
    const flashes = now < this.#flashUntil;
    mark(this.#cells.price, "flash", flashes ? this.#flash : undefined);
    if (this.#dirty) {
      this.#dirty = false;
      this.#draw();
      if (this.#message) this.#renderTexts(this.#message);
    }
    return flashes ? this.#flashUntil : Infinity;
  }

  #renderTexts({ data, seq }) {
    write(this.#cells.price, price(data.price));
    const change = data.priceChange24h;
    const trend = change > 0 ? "up" : change < 0 ? "down" : "flat";
    write(this.#cells.change, `${{ up: "▲", down: "▼", flat: "=" }[trend]} ${fraction(Math.abs(change))} %`);
    mark(this.#cells.change, "trend", trend);
    write(this.#cells.volume, compact(data.volume24h));
    write(this.#cells.seq, String(seq));
  }

  #draw() {
    const to = Date.now();
    const points = (this.#points = this.#points.filter((point) => point.at > to - SPAN_MS));
    const values = points.filter((point) => !point.gap).map((point) => point.value);
    if (!values.length) return;
    const low = Math.min(...values);
    const range = Math.max(...values) - low || 1;
    const height = SPARK.height - 2 * SPARK.margin;
    const x = (at) => (SPARK.width * (1 - (to - at) / SPAN_MS)).toFixed(1);
    const y = (value) => (SPARK.height - SPARK.margin - ((value - low) / range) * height).toFixed(1);
    const parts = [];
    let run = null;
    points.forEach((point, index) => {
      const last = points[index - 1];
      if (point.gap) {
        parts.push(svg("line", { class: "missed", x1: x(point.at), x2: x(point.at), y1: 0, y2: SPARK.height }));
        return;
      }
      const joined = last && !last.gap && point.at - last.at < JOIN_MS;
      if (!joined || run.resumed !== point.resumed) {
        run = { resumed: point.resumed, at: joined ? [`${x(last.at)},${y(last.value)}`] : [] };
        parts.push(run);
      }
      run.at.push(`${x(point.at)},${y(point.value)}`);
    });
    this.#spark.replaceChildren(...parts.map((part) => (part instanceof Element ? part : svg("polyline", {
      fill: "none", "vector-effect": "non-scaling-stroke", points: part.at.join(" "),
      class: part.resumed ? "resumed" : "live",
    }))));
    mark(this.#cells.spark, "trend", values.at(-1) >= values[0] ? "up" : "down");
  }
}

export class PriceBoard {
  #rows = new Map(TOKENS.map((token) => [`token.${token}`, new Row(token)]));
  #market = null;
  #lostAt = 0; // performance.now()
  /** Messages that were missed and have come later, in all. */
  resumed = 0;
  #back = null; // {at, away, resumed, missed, anew} since the connection came back
  #log;

  /** @param log where is told what became of an absence */
  constructor(log) {
    this.#log = log;
    byId("tokens").append(...[...this.#rows.values()].map((row) => row.element));
  }

  get channels() {
    return [...this.#rows.keys(), "global"];
  }

  /** The connection is gone. */
  lost() {
    this.#lostAt ||= performance.now();
  }

  /** The connection is there; for the first time, or again. */
  live() {
    if (!this.#lostAt) return;
    const at = performance.now();
    this.#back = { at, away: at - this.#lostAt, resumed: 0, missed: 0, anew: false };
    this.#lostAt = 0;
  }

  /** What is missed from now on is not asked for. */
  paused() {
    this.#lostAt = 0;
    this.#back = null;
  }

  /** Returns whether the message is a new one: not one that was missed and has come now. */
  take(message, latency) {
    const back = this.#back;
    const resumed = back !== null && latency > performance.now() - back.at + SLACK_MS;
    if (resumed) {
      back.resumed += 1;
      this.resumed += 1;
    }
    const row = this.#rows.get(message.channel);
    if (row) row.take(message, Date.now() - latency, resumed);
    else if (message.type === "market:stats") this.#market = { data: message.data, at: performance.now() };
    return !resumed;
  }

  gap({ channel, from, to, reason }) {
    this.#rows.get(channel)?.miss(Date.now());
    if (reason === "epoch") {
      if (this.#back) this.#back.anew = true;
      return;
    }
    if (this.#back) this.#back.missed += 1;
    this.#log.add("bad", `gap: ${channel} ${from === to ? from : `${from} to ${to}`} did not come, ${reason}`);
  }

  /** Bring the board up to date. Returns when it wants the next render by itself, or Infinity. */
  render(now) {
    const back = this.#back;
    if (back) {
      const words = `Back after ${duration(back.away)}: ${outcome(back)}`;
      write(byId("resume"), words);
      mark(byId("resume"), "kind", back.missed || back.anew ? "warn" : "good");
      if (now - back.at > CATCH_UP_MS) {
        this.#log.add(back.missed || back.anew ? "warn" : "good", `prices: ${words}`);
        this.#back = null;
      }
    }
    return Math.min(...[...this.#rows.values()].map((row) => row.render(now)));
  }

  /** What changes seldom. */
  renderMarket(now) {
    if (!this.#market) return;
    const { data, at } = this.#market;
    write(byId("market-age"), `${Math.floor((now - at) / 1000)} s ago`);
    write(byId("market-cap"), compact(data.totalMarketCap));
    write(byId("market-volume"), compact(data.totalVolume24h));
    write(byId("market-rising"), `${count(data.rising)} ▲ ${count(data.falling)} ▼`);
    write(byId("market-leader"), data.leader);
  }
}

function outcome({ resumed, missed, anew }) {
  if (anew) return "the stream began anew, so what was missed can’t be known";
  const came = `${count(resumed)} missed ${resumed === 1 ? "message" : "messages"} resumed`;
  return missed ? `${came}, ${count(missed)} ${missed === 1 ? "gap" : "gaps"}` : `${came}, none lost`;
}
