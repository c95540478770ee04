/** The HTTP server: one straight way from request to handler to answer. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import Koa from 'koa';
import Router from 'koa-router';
import type { Logger } from 'pino';
import type { Config } from '../config.js';
import { OarlockError } from '../domain/errors.js';
import { BodyReader, hasBody } from './body.js';
import { routeHandler } from './call.js';
import { JSON_TYPE, toJson } from './envelope.js';
import { HttpError, mapError, type ReportInternal } from './errors.js';
import type { HttpMetrics } from './metrics.js';
import type { Role, Route } from './route.js';
import { Gatekeeper } from './security.js';

/** What one request carries through the middleware. */
export interface EdgeState {
  host: { name: string; port: string };
}
export type EdgeContext = Koa.ParameterizedContext<EdgeState>;
export type PageContext = Router.RouterContext<EdgeState>;

/** Something at a path that is no API route: pages, streams, documents. Answers what it likes. */
export interface Page {
  readonly path: string;
  /** `null`: for everybody, token or not. */
  readonly role: Role | null;
  handle(ctx: PageContext, gate: Gatekeeper): Promise<void> | void;
}

export interface Limits {
  /** Requests being handled at once; more get 429. */
  readonly maxInFlight: number;
  readonly maxConnections: number;
  /** Time for a request's headers, milliseconds. */
  readonly headersMs: number;
  /** Time for a body, plus its size at `minBodyBytesPerSecond`. */
  readonly bodyMs: number;
  readonly minBodyBytesPerSecond: number;
}

export const DEFAULT_LIMITS: Limits = {
  maxInFlight: 512,
  maxConnections: 2048,
  headersMs: 10_000,
  bodyMs: 20_000,
  minBodyBytesPerSecond: 65_536,
};

export type EdgeConfig = Pick<
  Config,
  'host' | 'allowHosts' | 'allowOrigins' | 'tokens' | 'publicHost' | 'pathPrefix' | 'maxBodyBytes'
>;

export interface AppOptions {
  routes: readonly Route[];
  pages?: readonly Page[];
  config: EdgeConfig;
  log: Pick<Logger, 'error' | 'warn' | 'info' | 'debug'>;
  metrics?: HttpMetrics;
  limits?: Partial<Limits>;
  /** Checks every answer against its route's schema: for tests. */
  checkAnswers?: boolean;
}

const METHODS = 'DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT';

/** A server that is not listening yet. */
export function createApp(options: AppOptions): Server {
  const limits: Limits = { ...DEFAULT_LIMITS, ...options.limits };
  const { config, log } = options;
  const report: ReportInternal = (logId, error) => log.error({ logId, err: error }, 'request failed');
  const gate = new Gatekeeper(config);
  const bodies = new BodyReader({
    maxBytes: config.maxBodyBytes,
    maxTotalBytes: Math.max(2 * config.maxBodyBytes, 16 * 2 ** 20),
    baseMs: limits.bodyMs,
    minBytesPerSecond: limits.minBodyBytesPerSecond,
  });
  const router = new Router<EdgeState>({ sensitive: true });
  const byPath = new Map<string, Route[]>();
  for (const route of options.routes) byPath.set(route.path, [...(byPath.get(route.path) ?? []), route]);
  for (const route of options.routes) {
    const serve = routeHandler(route, { gate, bodies, checkAnswers: options.checkAnswers === true });
    router[route.method](route.path, serve);
  }
  for (const [path, routes] of byPath) router.all(path, otherMethods(routes));
  for (const page of options.pages ?? []) {
    router.get(page.path, async (ctx) => {
      if (ctx.path.length > 1 && ctx.path.endsWith('/')) {
        // A page finds its files relative to itself.
        ctx.status = 308;
        ctx.set('location', config.pathPrefix + ctx.path.slice(0, -1));
        ctx.body = '';
        return;
      }
      if (page.role !== null) gate.authorize(ctx.req, gate.authenticate(ctx.req), page.role, false);
      await page.handle(ctx, gate);
    });
  }

  const app = new Koa<EdgeState>({ proxy: false });
  app.silent = true;
  app.on('error', (error) => log.warn({ err: error }, 'answer not sent'));
  let inFlight = 0;
  app.use(async (ctx, next) => {
    const started = process.hrtime.bigint();
    inFlight++;
    try {
      if (inFlight > limits.maxInFlight) {
        throw new HttpError(
          429,
          'resource_exhausted',
          'The server is busy; try again in a moment.',
          { retryable: true },
          { 'retry-after': '1' },
        );
      }
      if (config.pathPrefix !== '' && ctx.path.startsWith(`${config.pathPrefix}/`)) {
        ctx.path = ctx.path.slice(config.pathPrefix.length);
      }
      ctx.state.host = gate.checkHost(ctx.req);
      const navigation =
        ctx.method === 'GET' && ctx.req.headers['sec-fetch-mode'] === 'navigate' && !byPath.has(ctx.path);
      const cors = gate.checkOrigin(ctx.req, ctx.state.host, navigation);
      ctx.set('vary', 'Origin');
      ctx.set('x-content-type-options', 'nosniff');
      if (cors !== undefined) {
        ctx.set('access-control-allow-origin', cors);
        ctx.set('access-control-allow-credentials', 'true');
      }
      if (ctx.method === 'OPTIONS') preflight(ctx, byPath);
      else await next();
      if (ctx.status === 404 && ctx.body === undefined && !ctx.headerSent && ctx.respond !== false) {
        throw new HttpError(404, 'not_found', `There is nothing at ${ctx.path.slice(0, 200)}.`, {
          hint: 'The routes are listed at /docs.',
        });
      }
    } catch (error) {
      fail(ctx, error, report);
    } finally {
      inFlight--;
      if (!ctx.req.complete && hasBody(ctx.req)) drain(ctx.req, limits.bodyMs);
      options.metrics?.observe(
        ctx.method,
        ctx._matchedRoute as string | undefined,
        ctx.status,
        Number(process.hrtime.bigint() - started) / 1e9,
      );
    }
  });
  app.use(router.routes());

  const respond = app.callback();
  const server = createServer(
    {
      headersTimeout: limits.headersMs,
      // Bodies have a deadline of their own, which grows with what has come.
      requestTimeout: 0,
      keepAliveTimeout: 65_000,
      connectionsCheckingInterval: Math.min(5000, limits.headersMs),
    },
    respond,
  );
  // Who asks first is told at once that the body is too large, instead of being invited to send it.
  server.on('checkContinue', (request: IncomingMessage, response: ServerResponse) => {
    if (Number(request.headers['content-length'] ?? 0) <= config.maxBodyBytes) response.writeContinue();
    respond(request, response);
  });
  server.maxConnections = limits.maxConnections;
  server.on('clientError', refuseBroken);
  server.on('listening', () => {
    const address = server.address();
    if (typeof address === 'object' && address !== null) gate.cookieName = `oarlock_${address.port}`;
  });
  return server;
}

const allowOf = (routes: readonly Route[]): string => {
  const methods = routes.map((route) => route.method.toUpperCase());
  return [...new Set([...methods, ...(methods.includes('GET') ? ['HEAD'] : []), 'OPTIONS'])].join(', ');
};

/** Wrong method on an API path: a handled request by PaddleX's rule. */
function otherMethods(routes: readonly Route[]): (ctx: EdgeContext) => void {
  const allow = allowOf(routes);
  return (ctx) => {
    throw new HttpError(
      200,
      'unsupported',
      `${ctx.method} is not offered on ${routes[0]?.path}; use ${allow.replace(', OPTIONS', '').replace(', HEAD', '')}.`,
      { context: { method: ctx.method } },
      { allow },
    );
  };
}

function preflight(ctx: EdgeContext, byPath: ReadonlyMap<string, Route[]>): void {
  const path = ctx.path.length > 1 && ctx.path.endsWith('/') ? ctx.path.slice(0, -1) : ctx.path;
  const routes = byPath.get(path);
  ctx.status = 204;
  ctx.set('allow', routes === undefined ? 'GET, HEAD, OPTIONS' : allowOf(routes));
  if (ctx.req.headers.origin === undefined || ctx.req.headers['access-control-request-method'] === undefined) return;
  ctx.set('access-control-allow-methods', METHODS);
  const wanted = ctx.req.headers['access-control-request-headers'];
  if (wanted !== undefined && /^[\w!#$%&'*+.^`|~, -]{1,1024}$/.test(wanted))
    ctx.set('access-control-allow-headers', wanted);
  ctx.set('access-control-max-age', '600');
}

function fail(ctx: EdgeContext, error: unknown, report: ReportInternal): void {
  if (ctx.headerSent || ctx.respond === false) {
    report('-', error);
    ctx.res.destroy();
    return;
  }
  const { httpStatus, headers, body } = mapError(error, report);
  ctx.status = httpStatus;
  for (const name in headers) ctx.set(name, headers[name] as string);
  ctx.type = JSON_TYPE;
  ctx.body = toJson(body);
}

/**
 * A body that nobody read is thrown away for a while, because closing at once would reset the connection before the
 * client has seen the answer; then the connection ends.
 */
function drain(request: IncomingMessage, bodyMs: number): void {
  request.on('error', () => {});
  request.resume();
  const timer = setTimeout(() => request.socket.destroy(), Math.min(5000, bodyMs));
  timer.unref();
  request.once('close', () => clearTimeout(timer));
}

/** Requests that the HTTP parser gave up on. */
function refuseBroken(error: NodeJS.ErrnoException, socket: import('node:stream').Duplex): void {
  if (error.code === 'ECONNRESET' || !socket.writable) return void socket.destroy();
  // Clients open connections ahead of their requests. An answer on such a connection would be taken for that of the
  // next request; a closed one is simply not used.
  if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT' && (socket as import('node:net').Socket).bytesRead === 0) {
    return void socket.destroy();
  }
  const [status, text] =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? ['431 Request Header Fields Too Large', 'The request line or headers are too long.']
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? ['408 Request Timeout', 'The request did not arrive in time.']
        : ['400 Bad Request', 'This is not a valid HTTP request.'];
  const failure = new OarlockError(status.startsWith('400') ? 'invalid_argument' : 'resource_exhausted', text);
  const body = toJson(mapError(failure, () => {}).body);
  socket.end(
    `HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Type: ${JSON_TYPE}\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
}
