/** Why there is no connection, in words. */

const ASK_MS = 5000; // between two questions
const TIMEOUT_MS = 4000;
const LOST = 1006; // all that a browser tells of an upgrade that was refused

export class Absence {
  #log;
  #told;
  #why = ""; // what the server says of itself over HTTP; null: it does not answer
  #said = ""; // what the log has last
  #askedAt = -Infinity;
  #away = false;
  /** Whether the server asks for its admin token. */
  locked = false;
  #token;

  /**
   * @param log where it is told
   * @param token gives the admin token, "" for none
   * @param told called when more is known
   */
  constructor(log, token, told) {
    this.#log = log;
    this.#token = token;
    this.#told = told;
  }

  /** @param closed {code, reason} of the connection that ended, or could not be made */
  begin(closed) {
    this.#away = true;
    if (closed.code !== LOST) this.#say("warn", `connection closed: ${closed.code} ${closed.reason.split(";")[0]}`);
    this.#ask(closed);
  }

  end() {
    this.#away = this.locked = false;
    this.#said = "";
    this.#askedAt = -Infinity;
  }

  /** A browser does not show what an upgrade was answered with, but the admin plane tells it in /health too. */
  async #ask(closed) {
    if (performance.now() - this.#askedAt < ASK_MS) return;
    this.#askedAt = performance.now();
    let why = null;
    try {
      const headers = this.#token() ? { Authorization: `Bearer ${this.#token()}` } : {};
      const signal = AbortSignal.timeout(TIMEOUT_MS);
      const response = await fetch("health", { cache: "no-store", headers, signal });
      this.locked = response.status === 401;
      const { errors = [], warnings = [] } = await response.json();
      why = [...errors, ...warnings].join("; ");
    } catch {
      // Nobody is there, which is what `null` says.
    }
    if (!this.#away) return;
    this.#why = why;
    if (closed.code === LOST) this.#say("bad", this.words(closed, false));
    this.#told();
  }

  #say(kind, text) {
    if (text === this.#said) return;
    this.#said = text;
    this.#log.add(kind, text);
  }

  /** @param over whether the client does not come back by itself */
  words({ code, reason }, over) {
    const rest = over ? " It asks this page not to come back by itself." : "";
    if (code !== LOST) return `The server closed the connection: ${code} ${reason.split(";")[0]}.${rest}`;
    if (this.#why === null) return "The server does not answer. What is shown below is of before.";
    return this.#why ? `The server refused this page: ${this.#why}.` : "The connection was lost or refused.";
  }
}
