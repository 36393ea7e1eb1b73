/**
 * A client of `/ws`: subscribes, follows every channel's sequence, comes back when it may, and resumes where it
 * was: nothing is missed but what a gap names. Where no WebSocket can be had it takes the event stream of `/sse`,
 * until one can. One module without dependencies; types in client.d.ts.
 *
 *   import { Client } from "https://your.server/client.js";
 *   const client = new Client("wss://your.server/ws", ["token.BTC"], { message: (m) => console.log(m) });
 *   client.start();
 */

/** Seconds to wait before coming back, by close code; null: do not come back. */
export const RETURN_AFTER_SECONDS = new Map([ // as in odinws/close_codes.py
  [1000, 5], [1001, 1], [1002, null], [1003, null], [1006, 0], [1007, null], [1008, null], [1009, null],
  [1011, 5], [1012, 1], [4008, 1], [4009, 0], [4401, null], [4403, null],
]);

/** Close codes that are about the token: with another one a client comes back after all. */
export const ANOTHER_TOKEN = new Set([4401]);

/** All in seconds but the share, as in odinws/client/backoff.py, which says what they mean. */
export const TIMES = Object.freeze({
  BASE_SECONDS: 0.5, CAP_SECONDS: 30, STEADY_SECONDS: 10, OTHER_CODE_SECONDS: 5, MAX_HINT_SECONDS: 300,
  OPEN_SECONDS: 10, CHECK_SECONDS: 10, RENEW_SHARE: 0.8,
});
/** When another transport is tried: after so many attempts in a row; and how soon a WebSocket again, in seconds. */
export const FALLBACK = Object.freeze({ TRIES: 2, AGAIN_SECONDS: 60, MOST_SECONDS: 600 });
const CLOCK_SAMPLES = 6;

const HINT = /; retry_after=([0-9]+(?:\.[0-9]+)?)$/; // in the text of a close frame: seconds

const NO_EPOCH = "none"; // of a worker that has not heard from NATS yet

const BROKEN = 1002; // what the server sent is not the protocol
const LOST = 1006; // what a browser says of a connection that ended without a close frame
const REFUSED = new Map([[400, 1008], [401, 4401], [403, 4403]]); // the close code that stands for an HTTP status

/** Exponential backoff with full jitter: clients that were lost together do not come back together. */
export function backoffSeconds(attempt, random = Math.random) {
  return random() * Math.min(TIMES.CAP_SECONDS, TIMES.BASE_SECONDS * 2 ** attempt);
}

/** Seconds to wait after a close code and its text; null: do not come back. What the text asks for is bounded. */
export function returnAfterSeconds(code, reason) {
  const hint = HINT.exec(reason);
  if (hint) return Math.min(Number(hint[1]), TIMES.MAX_HINT_SECONDS);
  return RETURN_AFTER_SECONDS.has(code) ? RETURN_AFTER_SECONDS.get(code) : TIMES.OTHER_CODE_SECONDS;
}

/** Whether this stands for more than one channel: `*` for one token, `>` at its end for one or more. */
const isWildcard = (name) => /[*>]/.test(name);

function formOf(wildcard) {
  const text = wildcard.replace(/[.+?^${}()|[\]\\\/]/g, "\\$&").replace(/\*/g, "[^.]+").replace(/>$/, ".+");
  return new RegExp(`^${text}$`);
}

/** An event stream of `/sse` in the guise of a WebSocket that sends nothing. */
class EventStream {
  onmessage = null; // besides `data` it gets the `position` that the client has reached with it
  onclose = null;
  onlife = null; // something came
  readyState = 0;
  #abort = new AbortController();

  constructor(url, token) {
    this.#run(url, token ? { Authorization: `Bearer ${token}` } : {});
  }

  close() {
    this.#abort.abort();
  }

  async #run(url, headers) {
    const end = { code: LOST, reason: "" };
    try {
      const answer = await fetch(url, { headers, cache: "no-store", signal: this.#abort.signal });
      if (answer.status === 200) await this.#read(answer.body.getReader(), end);
      else Object.assign(end, await refusal(answer));
    } catch (error) {
      end.reason = String(error);
    }
    if (!this.#abort.signal.aborted) this.onclose?.(end);
  }

  async #read(reader, end) {
    const decoder = new TextDecoder();
    for (let text = ""; ; ) {
      const { done, value } = await reader.read();
      if (done || this.#abort.signal.aborted) return;
      this.onlife?.();
      const blocks = (text + decoder.decode(value, { stream: true })).split("\n\n");
      text = blocks.pop();
      for (const block of blocks) this.#take(block, end);
    }
  }

  #take(block, end) {
    const { event, id, data } = Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/s, 2)));
    if (event === "closing") {
      const { code, reason, retry_after_seconds: wait } = JSON.parse(data);
      Object.assign(end, { code, reason: wait === undefined ? reason : `${reason}; retry_after=${wait}` });
    } else if (data) {
      this.onmessage?.({ data, position: id });
    }
  }
}

/** How an event stream ends that never began. */
async function refusal(answer) {
  const { message = "" } = await answer.json().catch(() => ({}));
  const wait = answer.headers.get("Retry-After");
  const reason = message || `HTTP ${answer.status}`;
  return { code: REFUSED.get(answer.status) ?? LOST, reason: wait ? `${reason}; retry_after=${wait}` : reason };
}

export class Client {
  /** connecting | live | waiting (comes back) | ended (told not to come back) | paused (by `stop`) */
  state = "connecting";
  /** websocket | sse: by which it is connected, or tries to be. */
  transport = "websocket";
  /** How the last connection ended: {code, reason}, or null. */
  closed = null;
  /** When the next attempt is due, in milliseconds of performance.now(). Only while waiting. */
  dueAt = 0;
  /** The server's last welcome, or null. */
  welcome = null;
  /** What the server did not like, or "". */
  problem = "";
  /** The channels of the last subscription that it did not give: [{channel, code, message}]. */
  rejected = [];
  received = 0;
  gaps = 0;
  reconnects = 0;

  #url;
  #channels;
  #wildcards; // among them: [{name, form}]
  #on;
  #socket = null;
  #opened = Infinity; // when the server said welcome
  #attempt = 0;
  #timer = 0;
  #check = 0;
  #checked = 0;
  #heard = false;
  #silent = 0; // looks in a row at which nothing had been heard
  #fallback; // URL of the event stream; false: none
  #works = "websocket"; // the transport of the last welcome
  #failures = 0; // attempts in a row that came to nothing
  #probe = 0;
  #candidate = null; // a WebSocket that is tried
  #asked = 0;
  #chain = new Map(); // channel -> seq up to which all is known
  #floor = null; // the same of all channels, by an event stream
  #epoch = ""; // of those numbers
  #token; // gives a token, or a promise of one
  #given = ""; // by it, at last
  #refused = null; // {token, code, reason} of one that was, until the server has taken another
  #renewal = 0;
  #fetching = null;
  #clock = []; // the last clock samples: {rtt, offset}, milliseconds
  #offset = 0;

  /**
   * @param url of `/ws`
   * @param channels to subscribe to; `token.*` stands for all tokens
   * @param on what to call, each optional: {change(): something above changed, message(message, latencyMs): data
   *   came, gap({channel, from, to, reason}): this will not come, figures({ts, data}): of `server.stats`}
   * @param token gives the token for a connection, "" for none, and again before it expires or when it was refused;
   *   may return a promise. If it gives the one again that was refused, the client ends; if it fails, it is asked
   *   again later
   * @param fallback URL of the event stream for where no WebSocket can be had, by default `sse` beside the WebSocket;
   *   false: none
   */
  constructor(url, channels, on, { token, fallback = true } = {}) {
    this.#url = url;
    this.#fallback = fallback;
    this.#channels = channels;
    this.#wildcards = channels.filter(isWildcard).map((name) => ({ name, form: formOf(name) }));
    this.#on = { change() {}, message() {}, gap() {}, figures() {}, ...on };
    this.#token = token;
  }

  /** Connect now, whatever the state. */
  start() {
    if (this.#socket || this.#fetching) return;
    clearTimeout(this.#timer);
    if (this.#token) this.#fetch();
    else this.#connect(this.#open(""));
  }

  /** A socket of the transport that works, or of the other one when that has failed for long. */
  #open(token) {
    const tries = this.#fallback ? this.#failures - FALLBACK.TRIES : -1;
    const other = this.#works === "websocket" ? "sse" : "websocket";
    this.transport = tries >= 0 && tries % 2 === 0 ? other : this.#works;
    return this.transport === "sse" ? new EventStream(this.#stream(), token) : this.#webSocket(token);
  }

  #webSocket(token) {
    return token ? new WebSocket(this.#url, ["odinws", `bearer.${token}`]) : new WebSocket(this.#url);
  }

  /** The URL of the event stream from where this client is. */
  #stream() {
    const url = new URL(this.#fallback === true ? "sse" : this.#fallback, this.#url);
    url.protocol = url.protocol.replace("ws", "http");
    for (const channel of this.#channels) url.searchParams.append("channel", channel);
    const known = this.#channels.map((channel) => this.#last(channel)).filter((seq) => seq !== undefined);
    if (known.length) url.searchParams.set("last_event_id", `${this.#epoch}:${Math.min(...known)}`);
    return url;
  }

  async #fetch() {
    this.#enter("connecting");
    const fetching = (this.#fetching = Promise.resolve().then(this.#token));
    try {
      const token = await fetching;
      if (this.#fetching !== fetching) return; // stopped meanwhile
      this.#fetching = null;
      if (token === this.#refused?.token) {
        this.#ended(this.#refused.code, this.#refused.reason);
        return;
      }
      this.#given = token;
      this.#renewAt(token);
      this.#connect(this.#open(token));
    } catch (error) {
      if (this.#fetching !== fetching) return;
      this.#fetching = null;
      this.#ended(LOST, `no token: ${error}`);
    }
  }

  /** Fetch the next token in time, and bring it over the open connection. */
  #renewAt(token) {
    clearTimeout(this.#renewal);
    const body = token.split(".")[1]?.replace(/-/g, "+").replace(/_/g, "/");
    let left;
    try {
      left = JSON.parse(atob(body)).exp * 1000 - Date.now();
    } catch {
      return; // not ours to judge: the server will
    }
    if (!Number.isFinite(left)) return;
    this.#renewIn(Math.max(1000, TIMES.RENEW_SHARE * left));
  }

  #renewIn(waitMs, failed = 0) {
    this.#renewal = setTimeout(async () => {
      const socket = this.#socket;
      try {
        const next = await this.#token();
        if (this.#socket !== socket) return; // the next connection has fetched its own
        this.#given = next;
        if (this.transport === "websocket") {
          this.#send("authenticate", { token: next });
        } else { // it can't be told, and begins anew
          this.#letGo();
          this.#connect(new EventStream(this.#stream(), next));
        }
        this.#renewAt(next);
      } catch (error) {
        if (this.#socket !== socket) return;
        this.problem = `no token: ${error}`;
        this.#renewIn(backoffSeconds(failed) * 1000, failed + 1);
        this.#on.change();
      }
    }, Math.min(waitMs, 2 ** 31 - 1));
  }

  #connect(socket) {
    this.#socket = socket;
    this.#heard = true;
    this.#silent = 0;
    this.#opened = Infinity;
    this.#checked = performance.now();
    this.#check = setInterval(() => this.#watch(), TIMES.CHECK_SECONDS * 1000);
    socket.onopen = () => this.#subscribe();
    socket.onmessage = (event) => this.#read(event.data, event.position);
    socket.onlife = () => (this.#heard = true);
    socket.onclose = (event) => this.#ended(event.code, event.reason);
    this.#enter("connecting");
  }

  #subscribe() {
    const data = { channels: this.#channels };
    const heard = this.#channels.filter((channel) => this.#last(channel) !== undefined);
    if (heard.length) {
      data.since = Object.fromEntries(heard.map((channel) => [channel, this.#last(channel)]));
      data.epoch = this.#epoch;
    }
    this.#send("subscribe", data);
  }

  /** Close, and stay closed until `start`. What is missed meanwhile is no gap, and is not asked for. */
  stop() {
    this.#fetching = null;
    this.#letGo(1000, "paused");
    this.#forget();
    this.#refused = null;
    this.closed = null;
    this.#enter("paused");
  }

  /** Send a command; it goes nowhere unless the connection is open. */
  #send(type, data) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify({ type, data }));
  }

  #read(text, position) {
    this.#heard = true;
    let message;
    try {
      message = JSON.parse(text);
      // What has a `seq` is a message, whose publisher may call it "welcome" too.
      const isWelcome = message.type === "welcome" && !("seq" in message);
      if (isWelcome ? !("epoch" in message) : this.#opened === Infinity) throw new Error();
    } catch {
      this.#ended(BROKEN, `not the protocol: ${String(text).slice(0, 100)}`, TIMES.OTHER_CODE_SECONDS);
      return;
    }
    this.#take(message);
    if (position && this.#socket) this.#floor = Number(position.slice(position.lastIndexOf(":") + 1));
  }

  /** Up to where all is known of a channel; undefined: it has not been heard. */
  #last(channel) {
    const seq = this.#chain.get(channel);
    return this.#floor === null ? seq : Math.max(seq ?? 0, this.#floor);
  }

  #forget() {
    this.#chain.clear();
    this.#floor = null;
  }

  #take(message) {
    if ("seq" in message) {
      if (!this.#follow(message)) return;
      this.received += 1;
      this.#on.message(message, Date.now() + this.#offset - message.ts);
      return;
    }
    switch (message.type) {
      case "welcome": {
        const isFirst = this.#opened === Infinity;
        this.#welcomed(message);
        if (isFirst && message.subscribed) this.#subscribed(message); // of an event stream
        break;
      }
      case "subscription_ack":
        this.#subscribed(message);
        break;
      case "gap":
        this.#skip(message);
        break;
      case "server:stats":
        this.#on.figures(message);
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

  #subscribed({ rejected }) {
    this.rejected = rejected;
    this.problem = rejected.map((one) => `${one.channel}: ${one.message}`).join("; ");
    // What is of another one is told by gaps, which follow.
    if (this.welcome && this.welcome.epoch !== NO_EPOCH) this.#epoch = this.welcome.epoch;
    this.#enter("live");
  }

  /** Whether a message is new. A hole before it that nobody told of is told here. */
  #follow({ channel, seq, prev }) {
    if (!this.#canCount(seq)) return false;
    const last = this.#last(channel) ?? 0;
    if (seq <= last) return false;
    if (last && prev > last) this.#skip({ channel, from: last + 1, to: prev, reason: "unknown" });
    this.#know(channel, seq);
    return true;
  }

  #skip({ channel, from, to, reason }) {
    if (!this.#canCount(to)) return;
    if (reason !== "epoch") this.gaps += 1; // of another life nothing was missed that one could know
    if (reason === "epoch") { // the numbers begin anew
      this.#chain.delete(channel);
      this.#floor = null;
    }
    this.#know(channel, to);
    this.#on.gap({ channel, from, to, reason });
    this.#on.change();
  }

  /** Numbers above 2^53 are no longer all different here: messages would be taken for those before them. */
  #canCount(seq) {
    if (Number.isSafeInteger(seq)) return true;
    this.#ended(BROKEN, `seq ${seq} is above 2^53, up to which JavaScript can count`, null);
    return false;
  }

  #know(channel, seq) {
    this.#reach(channel, seq);
    if (isWildcard(channel)) return; // a gap of one says nothing of the others
    for (const { name, form } of this.#wildcards) if (form.test(channel)) this.#reach(name, seq);
  }

  #reach(name, seq) {
    this.#chain.set(name, Math.max(this.#chain.get(name) ?? 0, seq));
  }

  /** First of a connection, and again when the epoch changes. */
  #welcomed(message) {
    if (this.#opened === Infinity) {
      this.#opened = performance.now();
      this.#works = this.transport;
      if (this.transport === "sse") this.#probeIn(FALLBACK.AGAIN_SECONDS);
      this.#refused = null;
      if (this.welcome) this.reconnects += 1;
    } else {
      if (this.welcome.epoch !== NO_EPOCH) this.#forget(); // the numbers begin anew
      this.#epoch = message.epoch;
    }
    this.welcome = message;
    this.#clock = [];
    this.#ask();
    this.#on.change();
  }

  /** On an event stream: see whether a WebSocket can be had after all, and go on with that. */
  #probeIn(seconds) {
    this.#probe = setTimeout(() => {
      const socket = (this.#candidate = this.#webSocket(this.#given));
      const limit = setTimeout(() => socket.close(), TIMES.OPEN_SECONDS * 1000);
      socket.onmessage = (event) => {
        clearTimeout(limit);
        this.#candidate = null;
        this.#letGo();
        this.transport = "websocket";
        this.#connect(socket);
        this.#subscribe();
        this.#read(event.data);
      };
      socket.onclose = () => {
        clearTimeout(limit);
        this.#candidate = null;
        this.#probeIn(Math.min(2 * seconds, FALLBACK.MOST_SECONDS));
      };
    }, seconds * 1000);
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

  /** A browser shows no pings, so ask; and give up a connection without a welcome, or that says nothing at all. */
  #watch() {
    const slept = performance.now() - this.#checked > TIMES.CHECK_SECONDS * 2000; // the tab or the machine
    this.#checked = performance.now();
    this.#silent = this.#heard || slept ? 0 : this.#silent + 1;
    // An event stream can't be asked: it says something each `heartbeat_seconds`.
    const most = this.transport === "sse" ? (this.welcome?.heartbeat_seconds ?? 0) / TIMES.CHECK_SECONDS + 1 : 0;
    if (!slept && (this.#silent > most || this.#opened === Infinity)) {
      this.#ended(LOST, this.#heard ? "no welcome" : "no sign of life");
      return;
    }
    this.#heard = false;
    this.#ask();
  }

  #ended(code, reason, after = returnAfterSeconds(code, reason)) {
    this.#letGo();
    this.closed = { code, reason };
    const isSteady = performance.now() - this.#opened > TIMES.STEADY_SECONDS * 1000;
    const isFailure = !isSteady && (code === LOST || this.#opened === Infinity);
    this.#failures = isFailure ? this.#failures + 1 : 0;
    if (ANOTHER_TOKEN.has(code) && this.#token && !this.#refused) {
      this.#refused = { token: this.#given, code, reason };
      after = 0;
    }
    if (after === null) {
      this.#enter("ended");
      return;
    }
    if (isSteady) this.#attempt = 0;
    const wait = (after + backoffSeconds(this.#attempt)) * 1000;
    this.#attempt += 1;
    this.dueAt = performance.now() + wait;
    this.#timer = setTimeout(() => this.start(), wait);
    this.#enter("waiting");
  }

  /** Forget the socket without waiting for its end, which may take a minute if the peer is gone. */
  #letGo(...closing) {
    clearTimeout(this.#timer);
    clearTimeout(this.#renewal);
    clearTimeout(this.#probe);
    clearInterval(this.#check);
    const candidate = this.#candidate;
    if (candidate) this.#candidate = candidate.onmessage = candidate.onclose = null;
    candidate?.close();
    const socket = this.#socket;
    if (!socket) return;
    this.#socket = socket.onopen = socket.onmessage = socket.onclose = socket.onlife = null;
    socket.close(...closing);
  }

  #enter(state) {
    this.state = state;
    this.#on.change();
  }
}
