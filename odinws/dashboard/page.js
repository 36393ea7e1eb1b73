/** The live page: one client, the token table, and at most ten renders a second. */

import { Client } from "./client.js";
import { ServerPanel } from "./server.js";
import { NONE, byId, compact, count, duration, fraction, make, mark, median, price, rate, write } from "./view.js";

const TOKENS = ["BTC", "ETH", "SOL", "ODIN", "DOGE", "USDT", "BNB", "XRP", "ADA", "MATIC"];
const RENDER_MS = 100; // least time between two renders
const NUMBERS_MS = 500; // between two readings of rates and countdown: faster can't be read
const FLASH_MS = 350;
const WINDOW_MS = 5000; // of rate and latency
const POINT_MS = 500; // one point of a sparkline
const POINTS = 120;
const SPARK = { width: 120, height: 28, margin: 2 };

const svg = (tag, attributes) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
};

/** One token: its latest message, its last minute, its row. */
class Row {
  #message = null;
  #points = [];
  #pointAt = 0;
  #flash;
  #flashUntil = 0;
  #dirty = false;
  #cells;
  #line = svg("polyline", { fill: "none", "vector-effect": "non-scaling-stroke" });

  constructor(token) {
    const cell = (name, ...children) => {
      const element = make("td", { className: name }, ...children);
      element.setAttribute("role", "cell");
      return element;
    };
    const head = make("th", { className: "token", scope: "row" }, token);
    head.setAttribute("role", "rowheader");
    const spark = svg("svg", {
      viewBox: `0 0 ${SPARK.width} ${SPARK.height}`, preserveAspectRatio: "none", "aria-hidden": "true",
    });
    spark.append(this.#line);
    this.#cells = {
      price: cell("price", NONE), change: cell("change", NONE), spark: cell("spark", spark),
      volume: cell("volume", NONE), seq: cell("seq", NONE),
    };
    this.element = make("tr", {}, head, ...Object.values(this.#cells));
    this.element.setAttribute("role", "row");
    this.element.dataset.token = token;
  }

  take(message, now) {
    const value = message.data?.price;
    if (!Number.isFinite(value)) return; // anybody may publish anything
    const last = this.#message?.data.price;
    if (last !== undefined && last !== value) {
      this.#flash = value > last ? "up" : "down";
      this.#flashUntil = now + FLASH_MS;
    }
    if (now - this.#pointAt >= POINT_MS || !this.#points.length) {
      this.#pointAt = now;
      this.#points.push(value);
      if (this.#points.length > POINTS) this.#points.shift();
    } else {
      this.#points[this.#points.length - 1] = value;
    }
    this.#message = message;
    this.#dirty = true;
  }

  /** Bring the row up to date. Returns when it wants the next render by itself, or Infinity. */
  render(now) {
    const flashes = now < this.#flashUntil;
    mark(this.#cells.price, "flash", flashes ? this.#flash : undefined);
    if (this.#dirty) {
      this.#dirty = false;
      const { data, seq } = this.#message;
      write(this.#cells.price, price(data.price));
      const change = data.priceChange24h;
      const trend = change > 0 ? "up" : change < 0 ? "down" : "flat";
      write(this.#cells.change, `${{ up: "▲", down: "▼", flat: "=" }[trend]} ${fraction(Math.abs(change))} %`);
      mark(this.#cells.change, "trend", trend);
      write(this.#cells.volume, compact(data.volume24h));
      write(this.#cells.seq, String(seq));
      this.#draw();
    }
    return flashes ? this.#flashUntil : Infinity;
  }

  #draw() {
    const points = this.#points;
    const low = Math.min(...points);
    const range = Math.max(...points) - low || 1;
    const step = SPARK.width / (POINTS - 1);
    const start = SPARK.width - (points.length - 1) * step;
    const height = SPARK.height - 2 * SPARK.margin;
    const y = (value) => SPARK.height - SPARK.margin - ((value - low) / range) * height;
    this.#line.setAttribute(
      "points",
      points.map((value, index) => `${(start + index * step).toFixed(1)},${y(value).toFixed(1)}`).join(" "),
    );
    mark(this.#cells.spark, "trend", points[points.length - 1] >= points[0] ? "up" : "down");
  }
}

const rows = new Map(TOKENS.map((token) => [`token.${token}`, new Row(token)]));
byId("tokens").append(...[...rows.values()].map((row) => row.element));

let recent = []; // {at, latency} of the last WINDOW_MS, while the page is looked at
let since = Infinity; // when `recent` began to be complete
let market = null;

const address = new URL("ws", document.baseURI);
address.search = location.search; // may carry a token
address.protocol = address.protocol.replace("http", "ws");
const client = new Client(address.href, [...rows.keys(), "global"], {
  change() {
    if (client.state === "live") {
      since = Math.min(since, performance.now());
    } else {
      since = Infinity;
      recent = [];
    }
    numbersAt = 0;
    renderSoon();
  },
  message(message, latency) {
    const now = performance.now();
    if (!document.hidden) recent.push({ at: now, latency });
    const row = rows.get(message.channel);
    if (row) row.take(message, now);
    else if (message.type === "market:stats") market = { data: message.data, at: now };
    renderSoon();
  },
});
const server = new ServerPanel();

// -- rendering ------------------------------------------------------------------------------------

let rendered = 0;
let timer = 0; // of the next render, whose time is dueAt
let dueAt = Infinity;
let frame = 0;
let numbersAt = 0;

/** Render at the next frame, but no sooner than RENDER_MS after the last one. */
function renderSoon(at = 0) {
  at = Math.max(at, rendered + RENDER_MS);
  if (frame || at >= dueAt) return;
  clearTimeout(timer);
  dueAt = at;
  timer = setTimeout(() => {
    dueAt = Infinity;
    frame = requestAnimationFrame(render);
  }, Math.max(0, at - performance.now()));
}

function render() {
  frame = 0;
  const now = (rendered = performance.now());
  let next = Infinity;
  for (const row of rows.values()) next = Math.min(next, row.render(now));
  renderState();
  if (now - numbersAt >= NUMBERS_MS) {
    numbersAt = now;
    renderNumbers(now);
  }
  if (client.state === "live" || client.state === "waiting") next = Math.min(next, numbersAt + NUMBERS_MS);
  if (next < Infinity) renderSoon(next);
}

const WORDS = { connecting: "connecting", live: "live", waiting: "lost", ended: "closed", paused: "paused" };
const ACTIONS = { connecting: "Pause", live: "Pause", waiting: "Connect now", ended: "Connect again", paused: "Resume" };

function renderState() {
  const { state, closed, welcome } = client;
  mark(document.body, "state", state);
  const over = closed && (state === "waiting" || state === "ended");
  const why = over && `${closed.code} ${closed.reason || (closed.code === 1006 ? "no answer" : "")}`.trim();
  write(byId("state"), over ? `${WORDS[state]} (${why})` : WORDS[state]);
  write(byId("switch"), ACTIONS[state]);
  if (welcome) {
    write(byId("worker"), welcome.server);
    write(byId("strategy"), welcome.strategy);
    write(byId("client"), welcome.client_id);
    write(byId("epoch"), welcome.epoch);
  }
  write(byId("notice"), client.problem);
  byId("notice").hidden = !client.problem;
}

function renderNumbers(now) {
  const { state } = client;
  recent = recent.filter((one) => now - one.at <= WINDOW_MS);
  const seconds = Math.min(WINDOW_MS, now - since) / 1000;
  write(byId("rate"), state === "live" && seconds >= 1 ? rate(recent.length / seconds) : NONE);
  write(byId("latency"), recent.length ? duration(median(recent.map((one) => one.latency))) : NONE);
  write(byId("received"), count(client.received));
  write(byId("gaps"), count(client.gaps));
  mark(byId("gaps"), "bad", client.gaps ? "" : undefined);
  write(byId("reconnects"), count(client.reconnects));
  const wait = Math.ceil((client.dueAt - now) / 1000);
  write(byId("countdown"), state === "waiting" && wait > 0 ? `next attempt in ${wait} s` : "");
  document.title = state === "live" ? "odinws" : `${WORDS[state]} – odinws`;
  if (market) renderMarket(now);
}

function renderMarket(now) {
  const { data, at } = market;
  write(byId("market-age"), `${Math.floor((now - at) / 1000)} s ago`);
  write(byId("market-cap"), compact(data.totalMarketCap));
  write(byId("market-volume"), compact(data.totalVolume24h));
  write(byId("market-rising"), count(data.rising));
  write(byId("market-falling"), count(data.falling));
  write(byId("market-leader"), data.leader);
}

// -- what the user and the browser do -------------------------------------------------------------

byId("switch").addEventListener("click", () => {
  if (client.state === "live" || client.state === "connecting") {
    client.stop();
    server.stop();
  } else {
    client.start();
    server.start();
  }
});
addEventListener("online", () => client.state === "waiting" && client.start());
document.addEventListener("visibilitychange", () => {
  recent = [];
  if (client.state === "live") since = performance.now();
});

client.start();
server.start();
