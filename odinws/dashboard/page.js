/** The live page: the figures of one server or several, the prices, and at most ten renders a second. */

import { Absence } from "./absence.js";
import { Chart } from "./chart.js";
import { EventLog } from "./events.js";
import { Source, armsOf } from "./figures.js";
import { renderEnds, renderFeed, renderRefusals, renderShards, renderWorkers } from "./panels.js";
import { PriceBoard } from "./prices.js";
import { NONE, age, byId, clock, count, duration, fraction, make, mark, median, rate, rowsOf, write } from "./view.js";

const RENDER_MS = 100; // least time between two renders
const NUMBERS_MS = 500; // between two readings of rates and countdown: faster can't be read
const WINDOW_MS = 5000; // of rate and latency

const WORDS = { connecting: "connecting", live: "live", waiting: "lost", ended: "closed", paused: "paused" };
const ACTIONS = { connecting: "Pause", live: "Pause", waiting: "Connect now", ended: "Connect again", paused: "Resume" };

// -- what is shown ----------------------------------------------------------------------------------

const cursor = {
  at: null,
  move(at) {
    cursor.at = at;
    cursor.redraw();
  },
  redraw() {
    stale = true;
    renderSoon();
  },
};
let stale = true; // charts and panels
let span = 300_000; // of the charts, milliseconds

const perSecond = (n) => (Number.isFinite(n) ? `${rate(n)}/s` : NONE);
const milliseconds = (n) => (Number.isFinite(n) ? duration(n) : NONE);
const SHORTEST_MS = 30_000; // of the charts, while there is little to show
// Connections in other formats than the native one.
const formats = ({ connections_by_format: counts = {} }) => Object.entries(counts)
  .filter(([name, n]) => n && name !== "json").map(([name, n]) => `, ${count(n)} ${name}`).join("");
const CHARTS = [
  { id: "connections", title: "Connections", lines: [{ key: "connections", name: "" }], format: count, tick: count, least: 10,
    of: (data) => `of ${count(data.max_connections)}, ${count(data.subscriptions)} subscriptions${formats(data)}` },
  { id: "deliveries", title: "Deliveries", lines: [{ key: "delivered", name: "" }], format: perSecond, tick: count, least: 10,
    of: (data) => `${count(data.fan_out.delivered)} in all` },
  { id: "delay", title: "Delivery delay", format: milliseconds, tick: duration, least: 2,
    lines: [{ key: "p50", name: "p50" }, { key: "p99", name: "p99", dashed: true }],
    of: () => "NATS to kernel, last 5 s" },
  { id: "cpu", title: "CPU, cores", lines: [{ key: "cpu", name: "" }], least: 0.1,
    format: fraction, tick: fraction, of: (data) => `of ${data.cpu_limit_cores} cores` },
  { id: "stall", title: "Hub stall", lines: [{ key: "stall", name: "" }], format: milliseconds, tick: duration, least: 10,
    of: () => "longest loop iteration, last 5 s" },
  { id: "refused", title: "Refusals", lines: [{ key: "refused", name: "" }], format: perSecond, tick: rate, least: 1,
    of: (data) => `${count(Object.values(data.refused).reduce((a, b) => a + b, 0))} in all`,
    empty: "Nobody was refused in this time." },
];
const charts = CHARTS.map((one) => new Chart(one, cursor));
byId("charts").append(...charts.map((chart) => chart.element));

const log = new EventLog(byId("events"), byId("events-none"));
const board = new PriceBoard(log);
const absence = new Absence(log, () => adminToken, () => {
  numbersAt = 0;
  renderSoon();
});

// -- where it comes from ----------------------------------------------------------------------------

let recent = []; // {at, latency} of the last WINDOW_MS, while the page is looked at
let since = Infinity; // when `recent` began to be complete
let adminToken = ""; // of the admin plane, where it asks for one

/** As part of a subprotocol, which may not have all characters. */
function sendable(token) {
  return encodeURIComponent(token).replace(/[()]/g, (one) => `%${one.charCodeAt(0).toString(16)}`);
}

function reading(source, last) {
  log.compare(source, last);
  cursor.redraw();
}

const address = new URL("ws", document.baseURI);
const parameters = new URLSearchParams(location.search);
const compared = parameters.getAll("compare");
parameters.delete("compare");
address.search = parameters; // may carry a token
address.protocol = address.protocol.replace("http", "ws");
const own = new Source("", address.href, board.channels, {
  reading,
  change() {
    const { state } = own.client;
    if (state === "live") {
      if (since === Infinity) log.add("good", `connected to ${client.welcome.server}, ${client.welcome.strategy}`);
      since = Math.min(since, performance.now());
      board.live();
    } else {
      since = Infinity;
      recent = [];
    }
    if (state === "waiting" || state === "ended") {
      board.lost();
      absence.begin(client.closed);
    } else if (state === "live") absence.end();
    numbersAt = 0;
    cursor.redraw();
  },
  message(message, latency) {
    const isNew = board.take(message, latency);
    if (isNew && !document.hidden) recent.push({ at: performance.now(), latency });
    renderSoon();
  },
  gap(gap) {
    board.gap(gap);
  },
}, { token: () => sendable(adminToken) });
const { client } = own;

const others = compared.map((url) => {
  const { host } = new URL(url, document.baseURI);
  const source = new Source(host, url, [], {
    reading,
    change() {
      cursor.redraw();
    },
  });
  return source;
});
const sources = [own, ...others];

// -- rendering --------------------------------------------------------------------------------------

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
  let next = board.render(now);
  renderState();
  if (now - numbersAt >= NUMBERS_MS) {
    numbersAt = now;
    renderNumbers(now);
    board.renderMarket(now);
  }
  if (stale) {
    stale = false;
    renderFigures();
  }
  if (client.state === "live" || client.state === "waiting") next = Math.min(next, numbersAt + NUMBERS_MS);
  if (next < Infinity) renderSoon(next);
}

function renderState() {
  const { state, closed, welcome } = client;
  mark(document.body, "state", state);
  write(byId("state"), WORDS[state]);
  write(byId("switch"), ACTIONS[state]);
  if (welcome) {
    write(byId("worker"), welcome.server);
    write(byId("strategy"), welcome.strategy);
    write(byId("client"), welcome.client_id);
    write(byId("epoch"), welcome.epoch);
  }
  let notice = client.rejected.filter((one) => one.channel !== "server.stats").map((one) => one.message).join("; ");
  if (closed && state !== "live" && state !== "paused") notice = absence.words(closed, state === "ended");
  write(byId("notice"), notice);
  byId("notice").hidden = !notice;
  byId("withheld").hidden = !own.withheld;
  mark(document.body, "withheld", own.withheld ? "" : undefined);
  byId("locked").hidden = !absence.locked;
}

function renderNumbers(now) {
  const { state } = client;
  recent = recent.filter((one) => now - one.at <= WINDOW_MS);
  const seconds = Math.min(WINDOW_MS, now - since) / 1000;
  write(byId("rate"), state === "live" && seconds >= 1 ? rate(recent.length / seconds) : NONE);
  write(byId("latency"), recent.length ? duration(median(recent.map((one) => one.latency))) : NONE);
  write(byId("received"), count(client.received));
  write(byId("resumed"), count(board.resumed));
  write(byId("gaps"), count(client.gaps));
  mark(byId("gaps"), "bad", client.gaps ? "" : undefined);
  write(byId("reconnects"), count(client.reconnects));
  const wait = Math.ceil((client.dueAt - now) / 1000);
  write(byId("countdown"), state === "waiting" && wait > 0 ? `next attempt in ${wait} s` : "");
  document.title = state === "live" ? "odinws" : `${WORDS[state]} – odinws`;
  renderLegend();
}

/** One entry per arm, and one for each server that has shown none yet. */
function renderLegend() {
  const arms = armsOf(sources);
  const entries = [
    ...arms.map((arm) => ({ arm, source: arm.source, name: arm.label })),
    ...others.filter((source) => !source.arms.size).map((source) => ({ source, name: source.name })),
  ];
  const items = rowsOf(byId("arms"), entries.length, () =>
    make("li", {}, make("span", { className: "letter" }, ""), make("span", {}, ""), make("span", { className: "note" }, "")));
  entries.forEach(({ arm, source, name }, index) => {
    const [letter, label, state] = items[index].children;
    mark(items[index], "arm", arm?.colour);
    write(letter, entries.length > 1 ? arm?.letter ?? "" : "");
    write(label, name);
    const said = source.withheld || WORDS[source.client.state];
    write(state, source.name && said !== "live" ? said : "");
  });
}

function renderFigures() {
  const arms = armsOf(sources);
  const to = Date.now();
  const began = Math.min(to - SHORTEST_MS, ...arms.map((arm) => arm.samples[0]?.at ?? to));
  const view = { from: Math.max(to - span, began), to, cursor: cursor.at };
  for (const chart of charts) chart.render(arms, view);
  write(byId("moment"), cursor.at ? `at ${clock(cursor.at)}` : own.now ? "" : "waiting for the first figures");
  mark(document.body, "figures", arms.length ? "" : undefined);
  if (cursor.at) return; // only the charts go back in time
  renderWorkers(sources, client.welcome?.server);
  renderShards(arms);
  renderRefusals(sources);
  renderEnds(sources);
  renderFeed(sources);
  byId("elsewhere").hidden = !own.now;
  if (!own.now) return;
  const { health, uptime_seconds: uptime, version } = own.now.data;
  write(byId("health"), own.isLive ? health.status : "unknown");
  mark(byId("health"), "status", own.isLive ? health.status : undefined);
  write(byId("uptime"), age(uptime));
  write(byId("version"), version);
  rowsOf(byId("problems"), health.problems.length, () => make("li", {}))
    .forEach((item, index) => write(item, health.problems[index]));
}

// -- what the user and the browser do ---------------------------------------------------------------

byId("switch").addEventListener("click", () => {
  const stops = client.state === "live" || client.state === "connecting";
  if (stops) board.paused();
  for (const source of sources) {
    if (stops) source.client.stop();
    else source.client.start();
  }
});
byId("span").addEventListener("change", (event) => {
  span = Number(event.target.value) * 1000;
  cursor.redraw();
});
byId("theme").addEventListener("click", () => {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
  document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
});
byId("locked").addEventListener("submit", (event) => {
  event.preventDefault();
  adminToken = byId("admin-token").value;
  client.stop();
  client.start();
});
addEventListener("online", () => client.state === "waiting" && client.start());
document.addEventListener("visibilitychange", () => {
  recent = [];
  if (client.state === "live") since = performance.now();
  cursor.redraw();
});

for (const source of sources) source.client.start();
renderSoon();
