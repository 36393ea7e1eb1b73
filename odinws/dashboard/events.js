/** What happened, newest first: told by the servers where they keep a journal, or seen in their figures. */

import { clock, make, mark, write } from "./view.js";

const MOST = 60;
const KINDS = {
  worker_started: "good", feed_up: "good", refusals_ended: "good", worker_left: "warn", config_reload: "warn",
  reload_refused: "bad", refusals_began: "warn", slow_closed: "warn", memory_closed: "warn", worker_killed: "bad",
  feed_lost: "bad", differences: "bad",
};
const REFUSALS_MS = 10_000; // one line for the refusals of so long

export class EventLog {
  #list;
  #empty;
  #told = new Map(); // source -> the newest event that it told
  #refusals = new Map(); // source and reason -> the line that counts them, and when it began

  constructor(list, empty) {
    this.#list = list;
    this.#empty = empty;
  }

  /**
   * @param kind "good", "bad", "warn" or "plain"
   * @param at milliseconds since 1970
   */
  add(kind, text, at = Date.now()) {
    const words = make("span", {}, text);
    const item = make("li", {}, make("time", { dateTime: new Date(at).toISOString() }, clock(at)), words);
    mark(item, "kind", kind);
    this.#list.prepend(item);
    while (this.#list.children.length > MOST) this.#list.lastElementChild.remove();
    this.#empty.hidden = true;
    return words;
  }

  /** What two readings of a source differ in. */
  compare(source, last) {
    const { data } = source.now;
    const name = source.name ? `${source.name}: ` : "";
    this.#tell(source, data.events ?? [], name);
    if (!last) return;
    const old = last.data;
    if (data.started_at - old.started_at > 0.5) {
      this.add("warn", `${name}the server was started anew`);
      return;
    }
    if (!data.events) this.#compareWorkers(data, old, name); // else they have told it themselves
    if (data.health.status !== old.health.status) {
      const kind = { healthy: "good", degraded: "warn" }[data.health.status] ?? "bad";
      this.add(kind, `${name}${[data.health.status, data.health.problems.join("; ")].filter(Boolean).join(": ")}`);
    }
    for (const [reason, all] of Object.entries(data.refused)) {
      if (all > old.refused[reason]) this.#refused(source, reason, all - old.refused[reason], name);
    }
    if (data.feed.gaps > old.feed.gaps) this.add("bad", `${name}the stream no longer had what was missed`);
    if (data.fan_out.shed > old.fan_out.shed) {
      this.add("warn", `${name}${data.fan_out.shed - old.fan_out.shed} messages not sent to slow clients`);
    }
  }

  #compareWorkers(data, old, name) {
    for (const worker of data.workers) {
      const before = old.workers.find((other) => other.slot === worker.slot && other.pid === worker.pid);
      const who = `${name}worker ${worker.slot} (pid ${worker.pid})`;
      if (!before) this.add("good", `${who} started, ${worker.strategy}`);
      else if (before.feed.ready && !worker.feed.ready) this.add("bad", `${who} lost its feed: ${worker.feed.problem}`);
      else if (!before.feed.ready && worker.feed.ready) this.add("good", `${who} has its feed, ${worker.feed.mode}`);
    }
    for (const worker of old.workers) {
      if (!data.workers.some((other) => other.pid === worker.pid)) {
        this.add("warn", `${name}worker ${worker.slot} (pid ${worker.pid}) is gone`);
      }
    }
  }

  /** One line for many refusals of a kind. */
  #refused(source, reason, amount, name) {
    const key = `${source.name} ${reason}`;
    let line = this.#refusals.get(key);
    if (!line || Date.now() - line.since > REFUSALS_MS) {
      line = { since: Date.now(), amount: 0, words: this.add("warn", "") };
      this.#refusals.set(key, line);
    }
    line.amount += amount;
    write(line.words, `${name}${line.amount} ${line.amount === 1 ? "client" : "clients"} refused: ${reason}`);
  }

  /** Events of the server's own log: {at: seconds since 1970, worker, kind, text}. */
  #tell(source, events, name) {
    const told = this.#told.get(source) ?? -Infinity;
    for (const event of events.filter((one) => one.at > told).sort((a, b) => a.at - b.at)) {
      this.add(KINDS[event.kind] ?? "plain", `${name}${event.text}`, event.at * 1000);
      this.#told.set(source, event.at);
    }
  }
}
