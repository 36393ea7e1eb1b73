/**
 * From the server's figures to what is drawn. A source is one server; its arms are the strategies that its
 * workers run. All rates are means of the last seconds, taken as differences of counts that only grow.
 */

import { Client } from "./client.js";

const CHANNEL = "server.stats";
const KEEP_MS = 16 * 60 * 1000;
const MEAN_READINGS = 6; // the mean of five seconds
const COLOURS = 4; // as many as style.css has

const sum = (values) => values.reduce((a, b) => a + b, 0);

/** What `share` of the observations does not exceed, within its bucket taken to be spread evenly; as report.py. */
export function quantile(bounds, counts, share) {
  const rank = share * sum(counts);
  let reached = 0;
  for (const [index, amount] of counts.entries()) {
    if (amount && reached + amount >= rank) {
      if (index >= bounds.length) return bounds[bounds.length - 1];
      const low = index ? bounds[index - 1] : 0;
      return low + ((bounds[index] - low) * (rank - reached)) / amount;
    }
    reached += amount;
  }
  return NaN;
}

/** By how much the workers' counts rose between two readings, each worker by itself: a new one has no before. */
function pairs(workers, before) {
  return workers.flatMap((worker) => {
    const old = before.find((other) => other.pid === worker.pid && other.slot === worker.slot);
    return old ? [[worker, old]] : [];
  });
}

/** One sample of an arm: the workers with this strategy now, and some seconds before. */
export function sample(now, before, strategy, at) {
  const workers = now.data.workers.filter((worker) => worker.strategy === strategy);
  const seconds = before ? (now.ts - before.ts) / 1000 : 0;
  const rising = seconds > 0 ? pairs(workers, before.data.workers) : [];
  const perSecond = (name) => (rising.length ? sum(rising.map(([a, b]) => a[name] - b[name])) / seconds : NaN);
  const bounds = now.data.lag_bounds_seconds;
  const lag = [...bounds, 0].map((_, index) => sum(rising.map(([a, b]) => a.lag[index] - b.lag[index])));
  return {
    at,
    connections: sum(workers.map((worker) => worker.connections)),
    delivered: perSecond("delivered"),
    p50: 1000 * quantile(bounds, lag, 0.5),
    p99: 1000 * quantile(bounds, lag, 0.99),
    cpu: sum(workers.map((worker) => worker.cpu_cores)),
    stall: 1000 * Math.max(0, ...workers.map((worker) => worker.hub_lag_seconds)),
    refused: perSecond("refused"),
  };
}

/** Deliveries per second of one worker; NaN for one that has no before. */
export function workerRate(source, worker) {
  const { now, before } = source;
  const [pair] = before ? pairs([worker], before.data.workers) : [];
  return pair ? ((pair[0].delivered - pair[1].delivered) * 1000) / (now.ts - before.ts) : NaN;
}

/** A server that is watched. */
export class Source {
  /** The last reading, and the one that rates are taken against; null: none came yet, or it began anew. */
  now = null;
  before = null;
  /** strategy -> {source, strategy, colour, samples} */
  arms = new Map();
  #readings = [];

  /**
   * @param name for legends; "" for the page's own server
   * @param url of its `/ws`
   * @param channels to follow besides the figures
   * @param on callbacks of the client, and reading(source, last): figures came, after those of `last`
   */
  constructor(name, url, channels, on, options) {
    this.name = name;
    this.client = new Client(url, [...channels, CHANNEL], {
      ...on,
      figures: (reading) => this.#take(reading, on.reading),
    }, options);
  }

  /** Whether what is shown of it is of now. */
  get isLive() {
    return this.client.state === "live";
  }

  /** Why the figures are kept from this page, or "". */
  get withheld() {
    return this.client.rejected.find((one) => one.channel === CHANNEL)?.message ?? "";
  }

  #take(reading, tell) {
    const last = this.now;
    if (last && reading.data.started_at - last.data.started_at > 0.5) this.#readings = []; // another server
    this.now = reading;
    this.#readings = [...this.#readings, reading].slice(-MEAN_READINGS);
    this.before = this.#readings.length > 1 ? this.#readings[0] : null;
    const at = Date.now();
    for (const strategy of new Set(reading.data.workers.map((worker) => worker.strategy))) {
      let arm = this.arms.get(strategy);
      if (!arm) this.arms.set(strategy, (arm = { source: this, strategy, samples: [] }));
      arm.samples.push(sample(reading, this.before, strategy, at));
      while (arm.samples[0].at < at - KEEP_MS) arm.samples.shift();
    }
    tell(this, last);
  }
}

/** The arms of all sources in the order of their names: each with a letter and a colour of its own. */
export function armsOf(sources) {
  const arms = sources.flatMap((source) =>
    [...source.arms.values()].sort((a, b) => a.strategy.localeCompare(b.strategy)));
  return arms.map((arm, index) => Object.assign(arm, {
    letter: String.fromCharCode(65 + (index % 26)),
    colour: String(index % COLOURS),
    label: arm.source.name ? `${arm.strategy} · ${arm.source.name}` : arm.strategy,
  }));
}
