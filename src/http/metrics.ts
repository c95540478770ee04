/** Numbers for `GET /metrics`, in the Prometheus text format. */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { Compute } from '../compute/ports.js';
import { TaskStatus } from '../domain/enums.js';
import type { EventBus, EventData } from '../domain/events.js';

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
    if (events !== undefined) {
      this.#watchTrainings(events);
      const own = events.listeners;
      gauge('oarlock_event_listeners', 'Open event streams.', () => events.listeners - own);
    }
  }

  /** One series for each running training; ended ones are taken away. */
  #watchTrainings(events: EventBus): void {
    const gauge = (name: string, help: string) =>
      new Gauge({ name, help, labelNames: ['task'], registers: [this.registry] });
    const gauges = {
      step_seconds: gauge('oarlock_training_step_seconds', 'Seconds of the newest logged training step.'),
      data_wait_seconds: gauge(
        'oarlock_training_data_wait_seconds',
        'Seconds that step waited for images (beyond a few percent the data path is too slow).',
      ),
      images_per_second: gauge('oarlock_training_images_per_second', 'Trained images per second.'),
      cache_hit_rate: gauge(
        'oarlock_training_cache_hit_rate',
        "Share of the running epoch's pictures that were found decoded in memory.",
      ),
    };
    events.subscribe((event) => {
      const { type, data } = event;
      if (type === 'progress') {
        const progress = data as EventData['progress'];
        for (const [key, series] of Object.entries(gauges)) {
          const value = progress[key as keyof typeof gauges];
          if (value != null) series.set({ task: progress.id }, value);
        }
      } else if (type === 'task') {
        const task = data as EventData['task'];
        if (task.action === 'deleted' || (task.status !== undefined && !TRAINING.has(task.status))) {
          for (const series of Object.values(gauges)) series.remove({ task: task.id });
        }
      }
    });
  }

  /** `route` is the pattern, never the path sent: the number of series stays bounded. */
  observe(method: string, route: string | undefined, status: number, seconds: number): void {
    const name = route ?? 'other';
    this.#requests.inc({ method: KNOWN.has(method) ? method : 'other', route: name, status }, 1);
    this.#seconds.observe({ route: name }, seconds);
  }
}

const KNOWN = new Set(['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH']);

const TRAINING = new Set<number>([TaskStatus.XTRAINING, TaskStatus.XPRUNETRAIN]);
