/** The parts of the server side by side: workers, shards, refusals and feeds. */

import { workerRate } from "./figures.js";
import { NONE, age, byId, bytes, count, duration, fill, fraction, make, mark, rate, rowsOf, svg, write } from "./view.js";

const REASONS = {
  capacity: "all connections taken", cpu: "CPU", memory: "memory", greenlets: "greenlets", hub_lag: "hub lag",
  draining: "draining", rate: "too many at once", address: "too many of one address", subject: "too many of one subject", origin: "origin", unauthorised: "no good token",
  forbidden: "not allowed", handshake: "bad handshake", overload: "more than can be served", gone: "gone before served",
};
const ENDS = {
  client: "said goodbye", gone: "gone without a word", going_away: "server drained", protocol: "protocol error",
  unsupported: "binary frame", bad_text: "not UTF-8", policy: "bad commands", too_big: "message too big",
  internal: "internal error", restart: "worker replaced", slow: "did not keep up", memory: "held too much", idle: "no sign of life",
  unauthorised: "token expired", forbidden: "not allowed", insufficient_state: "missed messages (SDK)",
  too_many: "too many of one subject", invalid_token: "no good token (SDK)", stale: "never connected (SDK)",
};
const LEAST_BARS = 16; // the room for so many is there also where there are fewer
const STRIP = { height: 56, gap: 2 };

// -- workers ----------------------------------------------------------------------------------------

const WORKER_CELLS = ["arm", "bar", "bar", "bar", "", "", "feed", ""];

/** One row per worker of every source; the one that serves this page is marked. */
export function renderWorkers(sources, ours) {
  const all = sources.flatMap((source) =>
    (source.now?.data.workers ?? []).map((worker) => ({ source, worker, rate: workerRate(source, worker) })));
  const most = (value) => Math.max(1e-9, ...all.map(value).filter(Number.isFinite));
  const widest = {
    connections: most(({ worker }) => worker.connections), rate: most((one) => one.rate),
    cpu: Math.max(1, most(({ worker }) => worker.cpu_cores)),
  };
  const rows = rowsOf(byId("workers"), all.length, () =>
    make("tr", {}, make("th", { scope: "row" }), ...WORKER_CELLS.map((kind) => make("td", { className: kind }))));
  all.forEach(({ source, worker, rate: delivered }, index) => {
    const row = rows[index];
    const arm = source.arms.get(worker.strategy);
    const texts = [
      String(worker.slot), arm.label, count(worker.connections),
      rate(delivered), fraction(worker.cpu_cores), duration(1000 * worker.hub_stall_recent_seconds),
      bytes(worker.rss_bytes), worker.feed.ready ? worker.feed.mode : worker.feed.problem || "no feed",
      age(worker.uptime_seconds),
    ];
    texts.forEach((text, column) => write(row.cells[column], text));
    row.cells[0].title = `pid ${worker.pid}`;
    fill(row.cells[2], worker.connections / widest.connections);
    fill(row.cells[3], delivered / widest.rate);
    fill(row.cells[4], worker.cpu_cores / widest.cpu);
    mark(row, "arm", arm.colour);
    mark(row, "past", source.isLive ? undefined : "");
    mark(row, "ours", !source.name && ours === `odinws/${worker.slot}` ? "" : undefined);
    mark(row.cells[7], "bad", worker.feed.ready ? undefined : "");
  });
}

// -- shards -----------------------------------------------------------------------------------------

/** Bars for one figure of an arm's shards, with a cursor that keys and pointer move. */
class Strip {
  #values = [];
  #at = null;
  #say = () => "";
  #plot = svg("svg", { preserveAspectRatio: "none", "aria-hidden": "true" });
  #out = make("output", { className: "note" });

  constructor(title) {
    this.frame = make("div", { className: "strip", tabIndex: 0 });
    this.frame.append(this.#plot);
    this.frame.setAttribute("role", "slider");
    this.frame.setAttribute("aria-label", title);
    this.frame.setAttribute("aria-valuemin", "0");
    this.element = make("div", {}, make("p", { className: "note strip-title" }, `${title} `, this.#out), this.frame);
    this.frame.addEventListener("pointermove", (event) => {
      this.#move(Math.floor((event.offsetX / this.frame.clientWidth) * Math.max(LEAST_BARS, this.#values.length)));
    });
    for (const over of ["pointerleave", "blur"]) this.frame.addEventListener(over, () => this.#move(null));
    this.frame.addEventListener("keydown", (event) => {
      const last = this.#values.length - 1;
      const next = {
        ArrowLeft: (this.#at ?? last + 1) - 1, ArrowRight: (this.#at ?? -1) + 1, Home: 0, End: last, Escape: null,
      }[event.key];
      if (next === undefined) return;
      event.preventDefault();
      this.#move(next);
    });
  }

  #move(at) {
    this.#at = at === null ? null : Math.min(this.#values.length - 1, Math.max(0, at));
    this.#draw();
  }

  /** @param say what is told of one bar, or with null of all */
  render(values, say) {
    this.#values = values;
    this.#say = say;
    this.#draw();
  }

  #draw() {
    const values = this.#values;
    const top = Math.max(0, ...values) || 1;
    mark(this.frame, "flat", values.some(Boolean) ? undefined : "");
    const text = values.length ? this.#say(this.#at) : "";
    const width = Math.max(LEAST_BARS, values.length) * 10;
    write(this.#out, text);
    this.frame.setAttribute("aria-valuemax", String(Math.max(0, values.length - 1)));
    this.frame.setAttribute("aria-valuenow", String(this.#at ?? 0));
    this.frame.setAttribute("aria-valuetext", text);
    this.#plot.setAttribute("viewBox", `0 0 ${width} ${STRIP.height}`);
    this.#plot.replaceChildren(...values.map((value, index) => {
      const height = value ? Math.max(2, (value / top) * STRIP.height) : 1;
      const bar = svg("rect", {
        x: index * 10 + STRIP.gap / 2, width: 10 - STRIP.gap, y: STRIP.height - height, height,
        class: value ? "bar" : "bar none",
      });
      if (index === this.#at) bar.classList.add("chosen");
      return bar;
    }));
  }
}

const strips = new Map(); // "letter name" -> {element, subscriptions, waits}

/** For every arm: subscriptions of each shard, and how long its lock was waited for. */
export function renderShards(arms) {
  const shown = arms.map((arm) => {
    const key = `${arm.letter} ${arm.label}`;
    let one = strips.get(key);
    if (!one) {
      one = {
        subscriptions: new Strip("Subscriptions"), waits: new Strip("Lock waits"),
        head: make("h3", {}), none: make("p", { className: "empty", hidden: true }, "No locks here, so nobody waits for one."),
      };
      one.element = make("div", { className: "arm-shards" },
        one.head, one.subscriptions.element, one.waits.element, one.none);
      strips.set(key, one);
    }
    mark(one.element, "arm", arm.colour);
    mark(one.element, "past", arm.source.isLive ? undefined : "");
    write(one.head, arms.length > 1 ? `${arm.letter}  ${arm.label}` : arm.label);
    const found = arm.source.now?.data.strategies?.find((strategy) => strategy.name === arm.strategy);
    if (found) renderStrips(one, found.shards);
    return one.element;
  });
  const parent = byId("shards");
  if (shown.some((element, index) => parent.children[index] !== element) || parent.children.length !== shown.length) {
    parent.replaceChildren(...shown);
  }
}

function renderStrips(one, shards) {
  const amount = shards.subscriptions.length;
  const sum = (values) => values.reduce((a, b) => a + b, 0);
  one.subscriptions.render(shards.subscriptions, (at) => (at === null
    ? `${count(sum(shards.subscriptions))} in ${count(amount)} ${amount === 1 ? "shard" : "shards"}, at most ${count(Math.max(...shards.subscriptions))} in one`
    : `shard ${at}: ${count(shards.subscriptions[at])} to ${count(shards.channels[at])} channels`));
  const locks = Boolean(shards.waits);
  one.none.hidden = locks;
  one.waits.element.hidden = !locks;
  if (!locks) return;
  one.waits.render(shards.wait_seconds, (at) => (at === null
    ? `${count(sum(shards.waits))} waits of ${count(sum(shards.acquisitions))}, the longest ${duration(1000 * Math.max(...shards.longest_wait_seconds))}`
    : `shard ${at}: ${count(shards.waits[at])} waits, ${duration(1000 * shards.wait_seconds[at])} in all, `
      + `longest ${duration(1000 * shards.longest_wait_seconds[at])}, held at most ${duration(1000 * shards.longest_hold_seconds[at])}`));
}

// -- tables with a column per source -------------------------------------------------------------------

/** @param facts [label, value of a reading as text or number, share of a bar, bad] per row */
function renderFacts(table, sources, facts) {
  const columns = sources.map((source) => (source.now ? facts(source.now.data) : null));
  const labels = columns.find(Boolean)?.map(([label]) => label) ?? [];
  const head = rowsOf(table.tHead.rows[0], sources.length + 1, () => make("th", { scope: "col" }));
  table.tHead.hidden = sources.length < 2;
  sources.forEach((source, index) => write(head[index + 1], source.name || "this server"));
  const rows = rowsOf(table.tBodies[0], labels.length, () => make("tr", {}, make("th", { scope: "row" })));
  rows.forEach((row, place) => {
    while (row.cells.length > sources.length + 1) row.lastElementChild.remove();
    while (row.cells.length < sources.length + 1) row.append(make("td", {}));
    write(row.cells[0], labels[place]);
    columns.forEach((column, index) => {
      const [, text, share, bad] = column?.[place] ?? ["", NONE];
      const cell = row.cells[index + 1];
      write(cell, text);
      cell.className = share === undefined ? "" : "bar";
      if (share !== undefined) fill(cell, share);
      mark(cell, "bad", bad ? "" : undefined);
      mark(cell, "past", sources[index].isLive ? undefined : "");
      mark(cell, "none", text === "0" ? "" : undefined);
    });
  });
}

/** Refused clients by reason. */
export function renderRefusals(sources) {
  renderReasons("refusals", "refused", sources, (reason) => REASONS[reason] ?? reason);
}

/** Connections that ended, by reason. */
export function renderEnds(sources) {
  renderReasons("ends", "closed", sources, (reason) => ENDS[reason] ?? reason);
}

/** The reasons that there were, with a bar each. */
function renderReasons(id, field, sources, word) {
  const sums = (reason) => sources.map((source) => source.now?.data[field][reason] ?? 0);
  const known = Object.keys(sources.find((source) => source.now)?.now.data[field] ?? {});
  const most = Math.max(1, ...known.flatMap(sums));
  const seen = known.filter((reason) => sums(reason).some(Boolean));
  byId(`${id}-none`).hidden = seen.length > 0;
  byId(id).hidden = !seen.length;
  renderFacts(byId(id), sources, (data) =>
    seen.map((reason) => [word(reason), count(data[field][reason]), data[field][reason] / most]));
}

/** How the feeds are: what came of what was published, and what went wrong. */
export function renderFeed(sources) {
  renderFacts(byId("feed"), sources, ({ feed, workers, recovery, fan_out: { gaps } }) => {
    const ready = workers.filter((worker) => worker.feed.ready).length;
    const fault = (label, amount) => [label, count(amount), undefined, amount > 0];
    const ratio = feed.published ? feed.received / feed.published : 1;
    return [
      ["Workers with a feed", `${ready} of ${workers.length}`, undefined, ready < workers.length],
      ["Received per published", `${fraction(ratio)} ×`, undefined, ratio > 1.01],
      fault("Delivered again", feed.redelivered),
      fault("Came twice, dropped", feed.duplicates),
      fault("Gone from the stream", feed.gaps),
      fault("No room before the hub", feed.overflow),
      fault("Not JSON", feed.invalid),
      fault("Gaps told to clients", Object.values(gaps).reduce((a, b) => a + b, 0)),
      ["Waiting for the hub", count(workers.reduce((all, worker) => all + worker.backlog, 0))],
      ["Feeds that came up", count(feed.sessions)],
      ["Messages sent again to who was away", count(recovery.replayed)],
    ];
  });
}
