/** Follows the memory of a host, so that its end by the kernel's out-of-memory killer is known for what it is, with numbers. */
import type { HostEnd } from './host-end.js';
import { type MemorySample, sampleMemory } from './machine.js';

const SAMPLE_EVERY_MS = 2_000;
/** A large process takes a while to die: the count of victims is compared with that of some samples ago. */
const KEPT_SAMPLES = 10;

export class MemoryWatch {
  readonly #samples: { kills: number | undefined; memory: MemorySample }[] = [];
  #sinceMs = 0;

  constructor(private readonly pid: number) {
    void this.#sample();
  }

  tick(elapsedMs: number): void {
    this.#sinceMs += elapsedMs;
    if (this.#sinceMs < SAMPLE_EVERY_MS) return;
    this.#sinceMs = 0;
    void this.#sample();
  }

  /** The last figures, and whether the kernel has counted a victim since; undefined when the process was never seen. */
  verdict(): HostEnd['memory'] {
    const first = this.#samples[0];
    const last = this.#samples.at(-1)?.memory;
    if (first === undefined || last === undefined) return undefined;
    const { rssMb, peakMb, limitMb } = last;
    return { rssMb, peakMb, limitMb, oomKilled: (last.oomKills() ?? 0) > (first.kills ?? Number.POSITIVE_INFINITY) };
  }

  async #sample(): Promise<void> {
    const memory = await sampleMemory(this.pid);
    if (memory === undefined || memory.rssMb === 0) return; // a dying process shows none
    this.#samples.push({ memory, kills: memory.oomKills() });
    if (this.#samples.length > KEPT_SAMPLES) this.#samples.shift();
  }
}
