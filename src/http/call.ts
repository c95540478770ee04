/** One API call: from a matched request to its answer. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { OarlockError } from '../domain/errors.js';
import type { EdgeContext } from './app.js';
import { type BodyReader, hasBody } from './body.js';
import { envelope, JSON_TYPE, toJson } from './envelope.js';
import { type InputReader, inputReader, MalformedJson, parseBody } from './input.js';
import { RawAnswer, type Route, type RouteContext } from './route.js';
import type { Gatekeeper } from './security.js';

const IS_JSON = /^application\/(?:[\w.+-]*\+)?json\s*(?:;|$)/i;

export interface Handling {
  gate: Gatekeeper;
  bodies: BodyReader;
  checkAnswers: boolean;
}

/** Middleware of one route: authorise, read and check the input, call the handler, send its answer. */
export function routeHandler(
  route: Route,
  { gate, bodies, checkAnswers }: Handling,
): (ctx: EdgeContext) => Promise<void> {
  const reader = inputReader(route.input);
  const changes = route.method !== 'get';
  const call = route.handle as (input: unknown, ctx: RouteContext) => Promise<unknown>;
  return async (ctx) => {
    const { req, res } = ctx;
    gate.authorize(req, gate.authenticate(req), route.role, changes);
    let release: (() => void) | undefined;
    try {
      let body: Record<string, unknown> | undefined;
      if (hasBody(req) && IS_JSON.test(req.headers['content-type'] ?? '')) {
        const received = await bodies.read(req);
        release = received.release;
        try {
          body = parseBody(received.bytes);
        } catch (error) {
          if (!(error instanceof MalformedJson) || ctx.querystring === '') throw error;
        }
      }
      const { input, given } = readInput(reader, body, ctx);
      const answer = await call(input, new CallContext(given, req, res, gate, ctx.state.host));
      if (answer instanceof RawAnswer) return sendRaw(ctx, answer);
      if (checkAnswers) checkAnswer(route, answer);
      ctx.status = 200;
      ctx.type = JSON_TYPE;
      ctx.body = envelope(answer);
    } finally {
      release?.();
    }
  };
}

function readInput(reader: InputReader, body: Record<string, unknown> | undefined, ctx: EdgeContext) {
  try {
    return reader.read(body, ctx.querystring);
  } catch (error) {
    const unread = body === undefined && hasBody(ctx.req) && !IS_JSON.test(ctx.req.headers['content-type'] ?? '');
    if (!unread || !(error instanceof OarlockError)) throw error;
    throw new OarlockError(error.code, error.message, {
      context: error.context,
      hint: 'The body was not read, because its Content-Type is not application/json.',
    });
  }
}

/** Built per call; what costs something is made on first use. */
class CallContext implements RouteContext {
  #signal: AbortSignal | undefined;

  constructor(
    readonly given: ReadonlySet<string>,
    private readonly request: IncomingMessage,
    private readonly response: ServerResponse,
    private readonly gate: Gatekeeper,
    private readonly host: { name: string; port: string },
  ) {}

  get headers(): RouteContext['headers'] {
    return this.request.headers;
  }

  get authority(): string {
    return this.gate.authority(this.request, this.host);
  }

  get signal(): AbortSignal {
    if (this.#signal === undefined) {
      const controller = new AbortController();
      this.#signal = controller.signal;
      this.response.once('close', () => {
        if (!this.response.writableFinished) controller.abort();
      });
    }
    return this.#signal;
  }
}

function sendRaw(ctx: EdgeContext, answer: RawAnswer): void {
  ctx.status = answer.status;
  for (const name in answer.headers) ctx.set(name, answer.headers[name] as string);
  ctx.type = answer.contentType;
  ctx.body = answer.body;
}

function checkAnswer(route: Route, answer: unknown): void {
  const { status: _, ...fields } = (answer ?? {}) as Record<string, unknown>;
  const checked = route.output.safeParse(JSON.parse(toJson(fields)));
  if (!checked.success) {
    throw new Error(`${route.method} ${route.path} answers against its schema: ${checked.error.message}`);
  }
}
