/**
 * From the server's figures to what is drawn. A source is one server; its arms are the strategies that its
 * workers run. The server keeps the timeline; rates of workers are differences of counts that only grow.
 */

import { Client } from "./client.js";

const CHANNEL = "server.stats";
const KEEP_MS = 16 * 60 * 1000;
const MEAN_READINGS = 6; // the mean of five seconds
const COLOURS = 4; // as many as style.css has

/** The server's timeline by strategy, at times of this machine's clock. */
export class Timeline {
  /** strategy -> {strategy, samples} */
  arms = new Map();
  #last = -Infinity; // sample, by the server's clock

  /** Take what is new in a reading, and forget what is old; `here` is when it came. */
  take({ ts, data: { timeline, workers } }, here) {
    for (const { at, arms } of timeline.filter((one) => one.at > this.#last)) {
      this.#last = at;
      for (const [strategy, moment] of Object.entries(arms)) {
        this.#arm(strategy).samples.push({ ...moment, at: at + here - ts });
      }
    }
    const running = new Set(workers.map((worker) => worker.strategy));
    for (const strategy of running) this.#arm(strategy);
    for (const [strategy, { samples }] of this.arms) {
      while (samples.length && samples[0].at < here - KEEP_MS) samples.shift();
      if (!samples.length && !running.has(strategy)) this.arms.delete(strategy);
    }
  }

  #arm(strategy) {
    const arm = this.arms.get(strategy) ?? { strategy, samples: [] };
    this.arms.set(strategy, arm);
    return arm;
  }
}

/** Deliveries per second of one worker; NaN for one that has no before. */
export function workerRate({ now, before }, worker) {
  const old = before?.data.workers.find((other) => other.pid === worker.pid && other.slot === worker.slot);
  return old ? ((worker.delivered - old.delivered) * 1000) / (now.ts - before.ts) : NaN;
}

/** A server that is watched. */
export class Source {
  /** The last reading, and the one that rates are taken against; null: none came yet, or it began anew. */
  now = null;
  before = null;
  #readings = [];
  #timeline = new Timeline();

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
    }, { ...options, fallback: false });
  }

  /** strategy -> {strategy, samples, and what `armsOf` adds} */
  get arms() {
    return this.#timeline.arms;
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
    this.#timeline.take(reading, Date.now());
    tell(this, last);
  }
}

/** The arms of all sources in the order of their names: each with its source, and a letter and a colour of its own. */
export function armsOf(sources) {
  const arms = sources.flatMap((source) =>
    [...source.arms.values()].sort((a, b) => a.strategy.localeCompare(b.strategy))
      .map((arm) => Object.assign(arm, { source })));
  return arms.map((arm, index) => Object.assign(arm, {
    letter: String.fromCharCode(65 + (index % 26)),
    colour: String(index % COLOURS),
    label: arm.source.name ? `${arm.strategy} · ${arm.source.name}` : arm.strategy,
  }));
}
