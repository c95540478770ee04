/** What the server says about itself: health, metrics, API description, events. */
import type { Health } from '../../domain/contracts.js';
import type { Page } from '../app.js';
import type { Assets } from '../assets.js';
import { JSON_TYPE, toJson } from '../envelope.js';
import type { HttpMetrics } from '../metrics.js';
import { openApi } from '../openapi.js';
import type { Route } from '../route.js';
import type { EventStreams } from '../stream.js';

export interface MetaOptions {
  routes: readonly Route[];
  version: string;
  pathPrefix: string;
  protected: boolean;
  metrics: HttpMetrics;
  streams: EventStreams;
  assets: Assets;
  health(): Health;
}

export function metaPages(options: MetaOptions): Page[] {
  let document: Buffer | undefined;
  const description = () => {
    document ??= Buffer.from(toJson(openApi(options.routes, options)));
    return document;
  };
  return [
    {
      path: '/openapi.json',
      role: null,
      handle(ctx) {
        ctx.status = 200;
        ctx.type = JSON_TYPE;
        ctx.body = description();
      },
    },
    { path: '/docs', role: null, handle: (ctx) => options.assets.send(ctx, 'docs.html') },
    {
      path: '/healthz',
      role: null,
      handle(ctx, gate) {
        const health = options.health();
        ctx.status = health.ok ? 200 : 503;
        ctx.type = JSON_TYPE;
        ctx.set('cache-control', 'no-store');
        // A probe without token learns only whether the server works.
        const full = !gate.protected || ctx.req.headers.authorization !== undefined;
        if (full) gate.authorize(ctx.req, gate.authenticate(ctx.req), 'read', false);
        ctx.body = toJson(
          full
            ? { ...health, version: options.version, uptime_seconds: Math.round(process.uptime()) }
            : { ok: health.ok },
        );
      },
    },
    {
      path: '/metrics',
      role: 'read',
      async handle(ctx) {
        const { registry } = options.metrics;
        ctx.status = 200;
        ctx.set('content-type', registry.contentType);
        ctx.body = await registry.metrics();
      },
    },
    options.streams.page(),
  ];
}
