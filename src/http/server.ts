/** The whole HTTP edge of a running Oarlock: API routes, pages, metrics and streams around one set of services. */
import type { Server } from 'node:http';
import type { Services } from '../services.js';
import { createApp, type EdgeConfig, type Limits } from './app.js';
import { Assets } from './assets.js';
import { HttpMetrics } from './metrics.js';
import type { Route } from './route.js';
import { apiRoutes } from './routes/index.js';
import { metaPages } from './routes/meta.js';
import { rootPages } from './routes/root.js';
import { boardPages } from './routes/vdl.js';
import { EventStreams, type StreamLimits } from './stream.js';

export interface EdgeOptions {
  services: Services;
  config: EdgeConfig & { gui: string | null };
  version: string;
  limits?: Partial<Limits & StreamLimits>;
  /** Checks every answer against its schema: for tests. */
  checkAnswers?: boolean;
}

export interface Edge {
  /** Not listening yet. */
  readonly server: Server;
  readonly routes: readonly Route[];
  /** No new connections; open requests may end within `graceMs`, streams end at once. */
  close(graceMs: number): Promise<void>;
}

export function createEdge({ services, config, version, limits = {}, checkAnswers = false }: EdgeOptions): Edge {
  const { pathPrefix } = config;
  const assets = new Assets();
  const streams = new EventStreams(services.events, limits);
  const metrics = new HttpMetrics(services);
  const routes = apiRoutes(services, { pathPrefix });
  const server = createApp({
    routes,
    pages: [
      ...rootPages({ gui: config.gui, pathPrefix, assets }),
      ...boardPages(services, assets),
      ...metaPages({
        routes,
        version,
        pathPrefix,
        protected: config.tokens.admin !== null,
        metrics,
        streams,
        assets,
        health: () => services.health(),
      }),
      ...assets.pages(),
    ],
    config,
    log: services.log,
    metrics,
    limits,
    checkAnswers,
  });
  return {
    server,
    routes,
    close: (graceMs) =>
      new Promise((resolve) => {
        streams.close();
        const timer = setTimeout(() => server.closeAllConnections(), graceMs);
        server.close(() => {
          clearTimeout(timer);
          resolve();
        });
        server.closeIdleConnections();
      }),
  };
}
