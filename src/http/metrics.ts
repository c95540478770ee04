/** Numbers for `GET /metrics`, in the Prometheus text format. */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { Compute } from '../compute/ports.js';
import type { EventBus } from '../domain/events.js';

export class HttpMetrics {
  readonly registry = new Registry();
  readonly #requests: Counter<'method' | 'route' | 'status'>;
  readonly #seconds: Histogram<'route'>;

  constructor(sources: { compute?: Pick<Compute, 'stats'>; events?: EventBus } = {}) {
    const registers = [this.registry];
    collectDefaultMetrics({ register: this.registry });
    this.#requests = new Counter({
      name: 'oarlock_http_requests_total',
      help: 'Answered requests.',
      labelNames: ['method', 'route', 'status'],
      registers,
    });
    this.#seconds = new Histogram({
      name: 'oarlock_http_request_seconds',
      help: 'Time from the headers of a request to its answer.',
      labelNames: ['route'],
      buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10],
      registers,
    });
    const { compute, events } = sources;
    const gauge = (name: string, help: string, value: () => number) =>
      new Gauge({
        name,
        help,
        registers,
        collect() {
          this.set(value());
        },
      });
    if (compute !== undefined) {
      gauge('oarlock_jobs_queued', 'Jobs waiting for a device.', () => compute.stats().queued);
      gauge('oarlock_jobs_running', 'Jobs running.', () => compute.stats().running);
      gauge('oarlock_compute_hosts', 'Compute host processes.', () => compute.stats().hosts.length);
      gauge('oarlock_compute_host_restarts', 'Compute hosts replaced since the start.', () => compute.stats().restarts);
    }
    if (events !== undefined) gauge('oarlock_event_listeners', 'Open event streams.', () => events.listeners);
  }

  /** `route` is the pattern, never the path sent: the number of series stays bounded. */
  observe(method: string, route: string | undefined, status: number, seconds: number): void {
    const name = route ?? 'other';
    this.#requests.inc({ method: KNOWN.has(method) ? method : 'other', route: name, status }, 1);
    this.#seconds.observe({ route: name }, seconds);
  }
}

const KNOWN = new Set(['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH']);
