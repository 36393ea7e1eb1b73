/**
 * A client of `/ws`: subscribes, follows every channel's sequence, and comes back when it may.
 * Knows nothing of the page.
 */

/** Seconds to wait before coming back, by close code, as in odinws/closing.py; null: do not come back. */
export const RETURN_AFTER_SECONDS = new Map([
  [1000, null], [1001, 1], [1002, null], [1003, null], [1006, 0], [1007, null], [1008, null], [1009, null],
  [1011, 5], [1012, 1], [4008, 1], [4009, 0], [4010, 30], [4401, null], [4403, null],
]);
const UNKNOWN_CODE_SECONDS = 5;

const BACKOFF_BASE_SECONDS = 0.5;
const BACKOFF_CAP_SECONDS = 30;
const STEADY_SECONDS = 10; // a connection that lived this long starts the waits anew
const CHECK_SECONDS = 10; // without any frame for this long, heartbeat answers included, it is lost
const CLOCK_SAMPLES = 6;

const LOST = 1006; // what a browser says of a connection that ended without a close frame

/** Exponential backoff with full jitter: clients that were lost together do not come back together. */
export function backoffSeconds(attempt, random = Math.random) {
  return random() * Math.min(BACKOFF_CAP_SECONDS, BACKOFF_BASE_SECONDS * 2 ** attempt);
}

export class Client {
  /** connecting | live | waiting (comes back) | ended (told not to come back) | paused (by `stop`) */
  state = "connecting";
  /** How the last connection ended: {code, reason}, or null. */
  closed = null;
  /** When the next attempt is due, in milliseconds of performance.now(). Only while waiting. */
  dueAt = 0;
  /** The server's last welcome, or null. */
  welcome = null;
  /** What the server did not like, or "". */
  problem = "";
  received = 0;
  gaps = 0;
  reconnects = 0;

  #url;
  #channels;
  #on;
  #socket = null;
  #opened = Infinity; // when the server said welcome
  #attempt = 0;
  #timer = 0;
  #check = 0;
  #checked = 0;
  #heard = false;
  #asked = 0;
  #chain = new Map(); // channel -> seq of its latest message
  #clock = []; // the last clock samples: {rtt, offset}, milliseconds
  #offset = 0;

  /**
   * @param url of `/ws`
   * @param channels to subscribe to
   * @param on {change(): something above changed, message(message, latencyMs): data came}
   */
  constructor(url, channels, on) {
    this.#url = url;
    this.#channels = channels;
    this.#on = on;
  }

  /** Connect now, whatever the state. */
  start() {
    if (this.#socket) return;
    clearTimeout(this.#timer);
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    this.#heard = true;
    this.#opened = Infinity;
    this.#checked = performance.now();
    this.#check = setInterval(() => this.#watch(), CHECK_SECONDS * 1000);
    socket.onopen = () => this.#send("subscribe", { channels: this.#channels });
    socket.onmessage = (event) => this.#take(JSON.parse(event.data));
    socket.onclose = (event) => this.#ended(event.code, event.reason);
    this.#enter("connecting");
  }

  /** Close, and stay closed until `start`. What is missed meanwhile is no gap. */
  stop() {
    this.#letGo(1000, "paused");
    this.#chain.clear();
    this.closed = null;
    this.#enter("paused");
  }

  /** Send a command; it goes nowhere unless the connection is open. */
  #send(type, data) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify({ type, data }));
  }

  #take(message) {
    this.#heard = true;
    if ("seq" in message) {
      this.#follow(message);
      this.received += 1;
      this.#on.message(message, Date.now() + this.#offset - message.ts);
      return;
    }
    switch (message.type) {
      case "welcome":
        this.#welcomed(message);
        break;
      case "subscription_ack":
        this.problem = message.rejected.map((one) => `${one.channel}: ${one.message}`).join("; ");
        this.#enter("live");
        break;
      case "gap":
        this.gaps += 1;
        this.#chain.delete(message.channel); // told once, so not counted again by its broken chain
        this.#on.change();
        break;
      case "pong":
        this.#setClock(message.ts);
        break;
      case "error":
        this.problem = message.message;
        this.#on.change();
        break;
    }
  }

  #follow({ channel, seq, prev }) {
    const last = this.#chain.get(channel);
    if (last !== undefined && last !== prev) this.gaps += 1;
    this.#chain.set(channel, seq);
  }

  /** First of a connection, and again when the epoch changes. */
  #welcomed(message) {
    if (message.epoch !== this.welcome?.epoch) this.#chain.clear();
    if (this.#opened === Infinity) {
      this.#opened = performance.now();
      if (this.welcome) this.reconnects += 1;
    }
    this.welcome = message;
    this.#clock = [];
    this.#ask();
    this.#on.change();
  }

  #ask() {
    this.#asked = performance.now();
    this.#send("heartbeat");
  }

  /** Estimate the server's clock from the quickest of the last answers, as NTP does (RFC 5905, section 10). */
  #setClock(serverMs) {
    const rtt = performance.now() - this.#asked;
    this.#clock = [...this.#clock, { rtt, offset: serverMs - (Date.now() - rtt / 2) }].slice(-CLOCK_SAMPLES);
    const best = this.#clock.reduce((a, b) => (b.rtt < a.rtt ? b : a));
    // Within the error of the measurement (and of whole milliseconds) the clocks agree.
    this.#offset = Math.abs(best.offset) <= best.rtt / 2 + 1 ? 0 : best.offset;
  }

  /** A browser shows no pings, so ask; and give up a connection that says nothing at all. */
  #watch() {
    const slept = performance.now() - this.#checked > CHECK_SECONDS * 2000; // the tab or the machine
    this.#checked = performance.now();
    if (!this.#heard && !slept) {
      this.#ended(LOST, "no sign of life");
      return;
    }
    this.#heard = false;
    this.#ask();
  }

  #ended(code, reason) {
    this.#letGo();
    this.closed = { code, reason };
    const after = RETURN_AFTER_SECONDS.has(code) ? RETURN_AFTER_SECONDS.get(code) : UNKNOWN_CODE_SECONDS;
    if (after === null) {
      this.#enter("ended");
      return;
    }
    if (performance.now() - this.#opened > STEADY_SECONDS * 1000) this.#attempt = 0;
    const wait = (after + backoffSeconds(this.#attempt)) * 1000;
    this.#attempt += 1;
    this.dueAt = performance.now() + wait;
    this.#timer = setTimeout(() => this.start(), wait);
    this.#enter("waiting");
  }

  /** Forget the socket without waiting for its end, which may take a minute if the peer is gone. */
  #letGo(...closing) {
    clearTimeout(this.#timer);
    clearInterval(this.#check);
    const socket = this.#socket;
    if (!socket) return;
    this.#socket = socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close(...closing);
  }

  #enter(state) {
    this.state = state;
    this.#on.change();
  }
}
