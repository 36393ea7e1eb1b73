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

/** What the server says of itself, once a second; `data` is in the words of `/stats`. */
export interface Figures {
  ts: number;
  data: Record<string, unknown>;
}

export interface Callbacks {
  change?(): void;
  message?(message: Message, latencyMs: number): void;
  gap?(gap: Gap): void;
  figures?(figures: Figures): void;
}

export interface Options {
  token?: () => string | Promise<string>;
  /** URL of the event stream for where no WebSocket can be had; by default `sse` beside it. */
  fallback?: string | boolean;
}

export declare const RETURN_AFTER_SECONDS: Map<number, number | null>;
export declare const ANOTHER_TOKEN: Set<number>;
export declare const TIMES: Readonly<Record<string, number>>;
export declare const FALLBACK: Readonly<Record<string, number>>;
export declare function backoffSeconds(attempt: number, random?: () => number): number;
export declare function returnAfterSeconds(code: number, reason: string): number | null;

export declare class Client {
  constructor(url: string, channels: string[], on?: Callbacks, options?: Options);
  readonly state: "connecting" | "live" | "waiting" | "ended" | "paused";
  readonly transport: "websocket" | "sse";
  readonly closed: { code: number; reason: string } | null;
  readonly dueAt: number;
  readonly welcome: Record<string, unknown> | null;
  readonly problem: string;
  readonly rejected: { channel: string; code: string; message: string }[];
  readonly received: number;
  readonly gaps: number;
  readonly reconnects: number;
  start(): void;
  stop(): void;
}
