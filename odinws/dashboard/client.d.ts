/** Types of client.js. */

export interface Message {
  /** Of the payload, or "message". */
  type: string;
  channel: string;
  /** Rises on each channel. */
  seq: number;
  prev: number;
  /** When NATS took it, milliseconds since 1970. */
  ts: number;
  data: unknown;
}

/** Messages that will not come: `from` to `to`, inclusive. */
export interface Gap {
  channel: string;
  from: number;
  to: number;
  reason: string;
}

export interface Callbacks {
  change?(): void;
  message?(message: Message, latencyMs: number): void;
  gap?(gap: Gap): void;
}

export interface Options {
  token?: () => string | Promise<string>;
}

export declare const RETURN_AFTER_SECONDS: Map<number, number | null>;
export declare function backoffSeconds(attempt: number, random?: () => number): number;

export declare class Client {
  constructor(url: string, channels: string[], on?: Callbacks, options?: Options);
  readonly state: "connecting" | "live" | "waiting" | "ended" | "paused";
  readonly closed: { code: number; reason: string } | null;
  readonly dueAt: number;
  readonly welcome: Record<string, unknown> | null;
  readonly problem: string;
  readonly received: number;
  readonly gaps: number;
  readonly reconnects: number;
  start(): void;
  stop(): void;
}
