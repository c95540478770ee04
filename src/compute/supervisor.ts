/** All compute hosts of this server: started when first needed, kept warm, replaced when they die. */
import { performance } from 'node:perf_hooks';
import type { ComputeConfig } from './config.js';
import { HostProcess } from './host-process.js';
import { HostRegistry } from './host-registry.js';
import type { Logger } from './logger.js';
import type { Lane } from './ports.js';

/** A host that was idle for longer is asked for a sign of life before it gets work. */
const TRUSTED_IDLE_MS = 2_000;
const PING_MS = 3_000;
const ATTEMPTS = 3;

export interface HostKey {
  /** One host per key. */
  key: string;
  lane: Lane;
  /** CUDA ordinals; empty = CPU only; undefined = any. */
  cuda: readonly number[] | undefined;
}

export class Supervisor {
  /** Every process that has not ended, ending ones too. */
  readonly #hosts = new Set<HostProcess>();
  readonly #acquiring = new Map<string, Promise<unknown>>();
  readonly #registry: HostRegistry;
  /** Hosts of an earlier server on this workspace are gone. */
  readonly recovered: Promise<void>;
  restarts = 0;
  #closing = false;

  constructor(
    private readonly config: ComputeConfig,
    private readonly logger: Logger,
  ) {
    this.#registry = new HostRegistry(config.workspace, logger);
    // A little longer than the hosts' own limit, so that they end by themselves first.
    this.recovered = this.#registry.recover(config.orphanGraceMs + 2_000, config.termGraceMs);
  }

  get hosts(): HostProcess[] {
    return [...this.#hosts];
  }

  /** A host that takes jobs, or one whose end explains why there is none. Undefined when the server is closing. */
  acquire(wanted: HostKey): Promise<HostProcess | undefined> {
    // One at a time per key, so that two jobs do not start two hosts.
    const before = this.#acquiring.get(wanted.key) ?? Promise.resolve();
    const mine = before.catch(() => {}).then(() => this.#acquire(wanted));
    this.#acquiring.set(wanted.key, mine);
    return mine;
  }

  async #acquire(wanted: HostKey): Promise<HostProcess | undefined> {
    await this.recovered;
    let host: HostProcess | undefined;
    for (let attempt = 0; attempt < ATTEMPTS && !this.#closing; attempt++) {
      host = await this.#warm(wanted);
      if (host === undefined) {
        await this.#makeRoom(wanted);
        if (this.#closing) return undefined;
        host = this.#start(wanted);
      }
      // A host that failed to start tells why; one that is ending for another reason is replaced.
      if (!(await host.ready) || host.isReady) return host;
    }
    return host;
  }

  async #warm({ key }: HostKey): Promise<HostProcess | undefined> {
    const host = this.hosts.find((candidate) => candidate.key === key && candidate.usable);
    if (host === undefined) return undefined;
    const idle = host.isReady && host.jobIds.length === 0 && performance.now() - host.idleSince > TRUSTED_IDLE_MS;
    if (!idle || (await host.ping(PING_MS))) return host.usable ? host : undefined;
    host.kill({ kind: 'unresponsive', seconds: PING_MS / 1000 });
    await host.ended;
    return undefined;
  }

  /** Training hosts without work give back a device that another set of devices includes. */
  async #makeRoom({ lane, key, cuda }: HostKey): Promise<void> {
    if (lane !== 'train') return;
    const inTheWay = this.hosts.filter(
      (host) =>
        host.lane === 'train' && (host.key === key || host.cuda?.some((ordinal) => cuda?.includes(ordinal)) === true),
    );
    for (const host of inTheWay) host.end({ kind: 'idle' });
    await Promise.all(inTheWay.map((host) => host.ended));
  }

  #start({ key, lane, cuda }: HostKey): HostProcess {
    const host: HostProcess = new HostProcess({
      key,
      lane,
      cuda,
      config: this.config,
      logger: this.logger,
      registry: this.#registry,
      onEnded: (ended, expected) => {
        this.#hosts.delete(ended);
        if (!expected) this.restarts++;
      },
    });
    this.#hosts.add(host);
    return host;
  }

  /** No new hosts from now on. */
  beginClose(): void {
    this.#closing = true;
  }

  /** Ends every host: asked first, SIGTERM after `endMs`, SIGKILL after `termMs` more. */
  async close(endMs: number, termMs: number): Promise<void> {
    this.#closing = true;
    const shutdown = { kind: 'shutdown' } as const;
    for (const host of this.#hosts) {
      if (host.jobIds.length === 0 && host.isReady) host.end(shutdown);
      else host.terminate(shutdown, endMs + termMs);
    }
    const all = Promise.all(this.hosts.map((host) => host.ended));
    for (const [withinMs, act] of [
      [endMs, (host: HostProcess) => host.terminate(shutdown, termMs)],
      [termMs, (host: HostProcess) => host.kill(shutdown)],
    ] as const) {
      if (await within(all, withinMs)) return;
      for (const host of this.#hosts) act(host);
    }
    await all;
  }
}

/** Whether the promise settles in time. */
export function within(promise: Promise<unknown>, ms: number): Promise<boolean> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(false), Math.max(0, ms));
    const done = (): void => {
      clearTimeout(timer);
      resolve(true);
    };
    promise.then(done, done);
  });
}
