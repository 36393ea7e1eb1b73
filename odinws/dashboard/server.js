/** The lower half of the page: `/stats` and `/health`, asked for every two seconds while it is looked at. */

import { backoffSeconds } from "./client.js";
import { NONE, age, byId, bytes, count, duration, fraction, make, mark, rate, write } from "./view.js";

const POLL_SECONDS = 2;
const TIMEOUT_SECONDS = 5;
const COLUMNS = 10;

export class ServerPanel {
  #timer = 0;
  #running = false;
  #asking = false;
  #failures = 0;
  #before = null; // the last /stats, for rates

  constructor() {
    document.addEventListener("visibilitychange", () => this.#poll());
  }

  /** Poll from now on. */
  start() {
    this.#running = true;
    this.#poll();
  }

  /** Poll no more; what is shown stays. */
  stop() {
    this.#running = false;
    this.#before = null;
    clearTimeout(this.#timer);
    mark(byId("server"), "stale", "");
  }

  async #poll() {
    clearTimeout(this.#timer);
    if (!this.#running || this.#asking || document.hidden) return;
    this.#asking = true;
    try {
      const [stats, health] = await Promise.all(["stats", "health"].map(ask));
      this.#failures = 0;
      if (this.#running) {
        mark(byId("server"), "stale", undefined);
        renderHealth(health);
        if (stats.error) {
          renderHidden(health);
        } else {
          renderStats(stats, this.#before);
          this.#before = stats;
        }
      }
    } catch {
      this.#failures += 1;
      this.#before = null;
      mark(byId("server"), "stale", "");
      mark(byId("health"), "status", "unhealthy");
      write(byId("health"), "does not answer");
    } finally {
      this.#asking = false;
    }
    const wait = POLL_SECONDS + (this.#failures && backoffSeconds(this.#failures));
    if (this.#running) this.#timer = setTimeout(() => this.#poll(), wait * 1000);
  }
}

/** The JSON of a path, whatever its status: /health says "unhealthy" with 503. */
async function ask(path) {
  const response = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_SECONDS * 1000) });
  return response.json();
}

function renderHealth({ status, checks, errors, warnings }) {
  write(byId("health"), status);
  mark(byId("health"), "status", status);
  byId("problems").replaceChildren(...[...errors, ...warnings].map((text) => make("li", {}, text)));
  write(byId("cpu"), `${fraction(checks.cpu.percentage)} %`);
  write(byId("cpu-limit"), `of ${checks.limits.cpu_limit} cores`);
  write(byId("memory"), bytes(checks.memory.used_mb * 2 ** 20));
  write(byId("memory-limit"), `of ${bytes(checks.memory.limit_mb * 2 ** 20)}`);
  write(byId("nats"), checks.nats.healthy ? checks.nats.mode : "down");
  write(byId("nats-note"), checks.nats.status);
  for (const name of ["cpu", "memory", "nats"]) mark(byId(name), "bad", checks[name].healthy ? undefined : "");
  mark(byId("connections"), "bad", checks.capacity.healthy ? undefined : "");
}

function renderStats(stats, before) {
  write(byId("connections"), count(stats.connections));
  write(byId("connections-max"), `of ${count(stats.max_connections)}`);
  write(byId("subscriptions"), count(stats.subscriptions));
  write(byId("delivered"), perSecond(stats, before));
  write(byId("delivered-all"), `${count(stats.fan_out.delivered)} in all`);
  write(byId("uptime"), age(stats.uptime_seconds));
  renderWorkers(stats.workers, before?.workers ?? []);
}

/** What a stranger may know: the inside is for the server's own machine, or its admin token. */
function renderHidden({ checks, uptime }) {
  write(byId("connections"), count(checks.capacity.current));
  write(byId("connections-max"), `of ${count(checks.capacity.max)}`);
  write(byId("uptime"), age(uptime));
  write(byId("subscriptions"), NONE);
  write(byId("delivered"), NONE);
  write(byId("delivered-all"), "shown on the server's own machine");
}

/** Deliveries between two readings by the server's own clock; none across a restart. */
function perSecond(now, before) {
  const seconds = before ? now.uptime_seconds - before.uptime_seconds : 0;
  const delivered = before ? now.fan_out.delivered - before.fan_out.delivered : 0;
  return seconds > 0 && delivered >= 0 ? rate(delivered / seconds) : NONE;
}

function renderWorkers(workers, before) {
  const body = byId("workers");
  while (body.rows.length > workers.length) body.deleteRow(-1);
  while (body.rows.length < workers.length) body.append(workerRow());
  const ours = byId("worker").textContent;
  workers.forEach((worker, index) => {
    const row = body.rows[index];
    const feed = worker.details.feed;
    const texts = [
      `${worker.slot} (pid ${worker.pid})`,
      count(worker.connections),
      count(worker.subscriptions),
      perSecond(worker, before.find((other) => other.pid === worker.pid)),
      `${fraction(worker.cpu_cores)} cores`,
      bytes(worker.rss_bytes),
      duration(worker.hub_stall_seconds * 1000),
      count(worker.details.shards?.length),
      feed ? (feed.ready ? feed.mode : feed.problem) : NONE,
      age(worker.uptime_seconds),
    ];
    texts.forEach((text, column) => write(row.cells[column], text));
    mark(row, "ours", ours === `odinws/${worker.slot}` ? "" : undefined);
  });
}

function workerRow() {
  const cells = Array.from({ length: COLUMNS - 1 }, () => make("td", {}));
  return make("tr", {}, make("th", { scope: "row" }), ...cells);
}
