/** `GET /events`: the domain's events as Server-Sent Events. */
import type { ServerResponse } from 'node:http';
import type { DomainEvent, EventBus } from '../domain/events.js';
import type { Page, PageContext } from './app.js';
import { toJson } from './envelope.js';
import { HttpError } from './errors.js';

export interface StreamLimits {
  /** Open streams at once; more get 429. */
  readonly maxStreams: number;
  /** Bytes waiting for one slow client before its stream is cut; it reconnects and catches up. */
  readonly maxBehindBytes: number;
  readonly heartbeatMs: number;
}

const DEFAULTS: StreamLimits = { maxStreams: 128, maxBehindBytes: 2 ** 20, heartbeatMs: 15_000 };

/** Text of the newest event, made once for all streams. */
let lastEvent: DomainEvent | undefined;
let lastText = '';

const textOf = (event: DomainEvent): string => {
  if (event !== lastEvent) {
    lastText = `id: ${event.id}\nevent: ${event.type}\ndata: ${toJson(event.data)}\n\n`;
    lastEvent = event;
  }
  return lastText;
};

export class EventStreams {
  readonly #bus: EventBus;
  readonly #limits: StreamLimits;
  readonly #open = new Set<ServerResponse>();

  constructor(bus: EventBus, limits: Partial<StreamLimits> = {}) {
    this.#bus = bus;
    this.#limits = { ...DEFAULTS, ...limits };
  }

  get size(): number {
    return this.#open.size;
  }

  page(): Page {
    return { path: '/events', role: 'read', handle: (ctx) => this.#serve(ctx) };
  }

  /** Ends all streams, for shutdown. */
  close(): void {
    for (const response of this.#open) response.end();
  }

  #serve(ctx: PageContext): void {
    const { req, res } = ctx;
    if (this.#open.size >= this.#limits.maxStreams) {
      throw new HttpError(
        429,
        'resource_exhausted',
        'Too many event streams are open.',
        { retryable: true },
        { 'retry-after': '10' },
      );
    }
    const types =
      typeof ctx.query.types === 'string' && ctx.query.types !== '' ? new Set(ctx.query.types.split(',')) : undefined;
    const from = req.headers['last-event-id'] ?? ctx.query.last_event_id;
    ctx.status = 200;
    ctx.set('content-type', 'text/event-stream; charset=utf-8');
    ctx.set('cache-control', 'no-cache, no-transform');
    ctx.set('x-accel-buffering', 'no');
    if (ctx.method === 'HEAD') {
      ctx.body = '';
      return;
    }
    ctx.respond = false;
    res.writeHead(200);
    req.socket.setNoDelay(true);
    // A client that knows nothing starts at "now"; one that comes back gets what it missed.
    const known = typeof from === 'string' && from !== '' ? Number(from) : this.#bus.lastId;
    const { events, gap } = this.#bus.replay(known);
    let first = 'retry: 2000\n';
    if (gap) first += `id: ${this.#bus.lastId}\nevent: reset\ndata: {}\n\n`;
    else {
      first += `id: ${known}\nevent: hello\ndata: {}\n\n`;
      for (const event of events) if (types === undefined || types.has(event.type)) first += textOf(event);
    }
    res.write(first);
    const unsubscribe = this.#bus.subscribe((event) => {
      if (types !== undefined && !types.has(event.type)) return;
      if (res.writableLength > this.#limits.maxBehindBytes) return void res.destroy();
      res.write(textOf(event));
    });
    const heartbeat = setInterval(() => {
      if (res.writableLength > this.#limits.maxBehindBytes) res.destroy();
      else res.write(': still here\n\n');
    }, this.#limits.heartbeatMs);
    heartbeat.unref();
    this.#open.add(res);
    res.on('error', () => {});
    res.once('close', () => {
      clearInterval(heartbeat);
      unsubscribe();
      this.#open.delete(res);
    });
  }
}
