/** Signs of life of one compute host and its jobs: pings, silence, stalled jobs, memory. */
import { performance } from 'node:perf_hooks';
import type { ComputeConfig } from './config.js';
import type { EndCause, HostEnd } from './host-end.js';
import { processStat } from './identity.js';
import type { Logger } from './logger.js';
import { MemoryWatch } from './memory-watch.js';
import type { RunningJob } from './running-job.js';
import { isSilentTooLong, silenceLimit } from './silence.js';
import { threadReport } from './thread-report.js';

const PING_EVERY_MS = 5_000;

/** What the watch sees of its host, and may do to it. */
export interface WatchedHost {
  readonly pid: number;
  readonly isReady: boolean;
  readonly isEnded: boolean;
  readonly runningJobs: Iterable<RunningJob>;
  sendPing(): void;
  terminate(cause: EndCause): void;
}

export class HostWatch {
  readonly #host: WatchedHost;
  readonly #config: ComputeConfig;
  readonly #logger: Logger;
  readonly #memory: MemoryWatch | undefined;
  readonly #timer: NodeJS.Timeout;
  #lastTick = performance.now();
  #unansweredMs = 0;
  #sincePingMs = 0;

  constructor(host: WatchedHost, config: ComputeConfig, logger: Logger) {
    this.#host = host;
    this.#config = config;
    this.#logger = logger;
    if (config.launcher.local) this.#memory = new MemoryWatch(host.pid);
    const period = Math.min(1_000, Math.max(50, config.stallMs / 10));
    this.#timer = setInterval(() => this.#tick(period), period);
    this.#timer.unref();
  }

  /** The host has sent something. */
  heard(): void {
    this.#unansweredMs = 0;
  }

  memory(): HostEnd['memory'] {
    return this.#memory?.verdict();
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #tick(periodMs: number): void {
    const now = performance.now();
    // While this process itself was held up (suspended, debugged), its hosts' messages waited too: that time counts once at most.
    const elapsed = Math.min(now - this.#lastTick, 2 * periodMs);
    this.#lastTick = now;
    this.#memory?.tick(elapsed);
    if (!this.#host.isReady) return;
    let jobs = 0;
    for (const running of this.#host.runningJobs) {
      jobs += 1;
      this.#watch(running, elapsed);
    }
    this.#unansweredMs += elapsed;
    this.#sincePingMs += elapsed;
    if (this.#sincePingMs >= Math.min(PING_EVERY_MS, this.#config.stallMs / 3)) {
      this.#sincePingMs = 0;
      this.#host.sendPing();
    }
    if (jobs === 0 && this.#unansweredMs > this.#config.stallMs) {
      this.#host.terminate({ kind: 'unresponsive', seconds: Math.round(this.#unansweredMs / 1000) });
    }
  }

  #watch(running: RunningJob, elapsedMs: number): void {
    const { pid } = this.#host;
    const cpuTicks = (): number => (this.#config.launcher.local ? (processStat(pid)?.cpuTicks ?? 0) : 0);
    const silent = isSilentTooLong(running.job, elapsedMs, cpuTicks, this.#config);
    if (!silent || running.condemned || running.job.stopRequested) return;
    running.condemned = true;
    void this.#stalled(running);
  }

  async #stalled(running: RunningJob): Promise<void> {
    const { job, log } = running;
    const { pid } = this.#host;
    const seconds = Math.round(job.silentMs / 1000);
    const message = `No sign of life for ${seconds} s.`;
    this.#logger.warn({ pid, job: job.id, seconds }, 'a job has stalled');
    job.setState('stalled', { message });
    log.write(`${message} Threads of the compute host:\n`);
    if (this.#config.launcher.local && this.#config.stackDumpMs > 0) {
      log.write(await threadReport(pid, this.#config.stackDumpMs));
    }
    if (job.ended || this.#host.isEnded) return;
    if (job.silentMs < silenceLimit(job, this.#config)) {
      running.condemned = false;
      job.setState('running', { message: 'It goes on.' });
      return;
    }
    this.#host.terminate({ kind: 'stall', job: job.id, seconds });
  }
}
