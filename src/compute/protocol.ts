/**
 * The job protocol between the API process and a compute host: one message = one JSON object.
 *
 * The same objects travel over Node's IPC channel (local hosts) and as JSON lines over a byte stream
 * (hosts behind `srun` or any other command). Plain types and a hand-written check instead of zod keep a host's start fast.
 */
import { StringDecoder } from 'node:string_decoder';
import type { JobEvent, JobOutcome, JobSpec } from './jobs.gen.js';
import type { DeviceInfo } from './ports.js';

/** Raised when a message changes its meaning; both ends must agree. */
export const PROTOCOL_VERSION = 1;

/** Longest line accepted from a host, in UTF-16 units. The largest real message is the evaluation report of some thousand classes. */
export const MAX_LINE_LENGTH = 64 * 1024 * 1024;

/** Environment variable with the random token that, beside pid and start time, identifies a host. */
export const TOKEN_VARIABLE = 'OARLOCK_HOST_TOKEN';

/** Exit codes by which a host says why it ended itself. */
export const HostExit = {
  done: 0,
  badUse: 64,
  engineUnavailable: 69,
  orphaned: 75,
  deviceFault: 86,
  terminated: 143,
} as const;

export type ToHost =
  | { t: 'run'; id: string; spec: JobSpec }
  | { t: 'control'; id: string; command: 'stop' }
  | { t: 'ping'; seq: number }
  | { t: 'devices'; seq: number }
  /** Ask all jobs to stop, then end. */
  | { t: 'end' };

export type HostEndReason = 'done' | 'engine_unavailable' | 'orphaned' | 'device_fault' | 'terminated';

export type FromHost =
  | { t: 'ready'; protocol: number; pid: number; version: string }
  | { t: 'pong'; seq: number }
  | { t: 'devices'; seq: number; gpus: DeviceInfo[]; reason: string | null }
  | { t: 'event'; id: string; event: JobEvent }
  | { t: 'outcome'; id: string; outcome: JobOutcome }
  | { t: 'log'; level: 'info' | 'warn' | 'error'; message: string }
  /** The last message of a host that ends itself. */
  | { t: 'ending'; reason: HostEndReason; message: string };

type Shape = Readonly<Record<string, 'string' | 'number' | 'object'>>;

const toHost: Readonly<Record<ToHost['t'], Shape>> = {
  run: { id: 'string', spec: 'object' },
  control: { id: 'string', command: 'string' },
  ping: { seq: 'number' },
  devices: { seq: 'number' },
  end: {},
};

const fromHost: Readonly<Record<FromHost['t'], Shape>> = {
  ready: { protocol: 'number', pid: 'number', version: 'string' },
  pong: { seq: 'number' },
  devices: { seq: 'number', gpus: 'object' },
  event: { id: 'string', event: 'object' },
  outcome: { id: 'string', outcome: 'object' },
  log: { level: 'string', message: 'string' },
  ending: { reason: 'string', message: 'string' },
};

function check(value: unknown, shapes: Readonly<Record<string, Shape>>): boolean {
  if (typeof value !== 'object' || value === null) return false;
  const message = value as Record<string, unknown>;
  const shape = typeof message.t === 'string' && Object.hasOwn(shapes, message.t) ? shapes[message.t] : undefined;
  if (shape === undefined) return false;
  return Object.entries(shape).every(([key, type]) => typeof message[key] === type && message[key] !== null);
}

/** The message if it is one the API process may send; else undefined. */
export const asToHost = (value: unknown): ToHost | undefined => (check(value, toHost) ? (value as ToHost) : undefined);

/** The message if it is one a host may send; else undefined. */
export const asFromHost = (value: unknown): FromHost | undefined =>
  check(value, fromHost) ? (value as FromHost) : undefined;

export const encodeLine = (message: ToHost | FromHost): string => `${JSON.stringify(message)}\n`;

/**
 * Cuts a byte stream into messages. Chunks may end anywhere, inside a UTF-8 sequence too.
 * Text that is no message (a launcher's banner, a library's print) goes to `stray`; when such text has no line end of its own
 * and a message follows on the same line, the message is still found.
 * @throws RangeError when a line grows beyond `maxLength`: the peer is broken and must be ended.
 */
export class LineDecoder {
  readonly #decoder = new StringDecoder('utf8');
  #parts: string[] = [];
  #length = 0;

  constructor(
    private readonly onMessage: (value: unknown) => void,
    private readonly onStray: (text: string) => void,
    private readonly maxLength = MAX_LINE_LENGTH,
  ) {}

  push(chunk: Buffer): void {
    const text = this.#decoder.write(chunk);
    let from = 0;
    for (let end = text.indexOf('\n'); end !== -1; end = text.indexOf('\n', from)) {
      this.#add(text.slice(from, end));
      this.#flush();
      from = end + 1;
    }
    this.#add(text.slice(from));
  }

  /** The stream ended: what is left is a torn line unless it happens to be whole. */
  end(): void {
    this.#add(this.#decoder.end());
    this.#flush();
  }

  #add(text: string): void {
    if (text === '') return;
    this.#length += text.length;
    if (this.#length > this.maxLength) {
      this.#parts = [];
      this.#length = 0;
      throw new RangeError(`a line of the job protocol is longer than ${this.maxLength} characters`);
    }
    this.#parts.push(text);
  }

  #flush(): void {
    const line = this.#parts.join('').trim();
    this.#parts = [];
    this.#length = 0;
    if (line === '') return;
    const start = line.indexOf('{"t":"');
    if (start === -1) {
      this.onStray(line);
      return;
    }
    let value: unknown;
    try {
      value = JSON.parse(line.slice(start));
    } catch {
      this.onStray(line);
      return;
    }
    if (start > 0) this.onStray(line.slice(0, start));
    this.onMessage(value);
  }
}
