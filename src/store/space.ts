/** Watches the free space of the workspace's disk. */
import { statfs } from 'node:fs/promises';
import { OarlockError } from '../domain/errors.js';

export class SpaceWatch {
  readonly #folder: string;
  readonly #minFree: number;
  readonly #timer: NodeJS.Timeout;
  #free: number | null = null;

  /** `onLow` below the threshold, `onCritical` below an eighth of it; each once until there is room again. */
  constructor(
    folder: string,
    minFreeBytes: number,
    watch: { onLow(free: number): void; onCritical(free: number): void },
  ) {
    this.#folder = folder;
    this.#minFree = minFreeBytes;
    let level = 0;
    this.#timer = setInterval(async () => {
      const free = await this.measure();
      const now = free === null || free >= minFreeBytes ? 0 : free >= minFreeBytes / 8 ? 1 : 2;
      if (free !== null && now > 0 && level === 0) watch.onLow(free);
      if (free !== null && now === 2 && level < 2) watch.onCritical(free);
      level = now;
    }, 10_000);
    this.#timer.unref();
  }

  /** Bytes free at the last look; null when the system does not tell. */
  get free(): number | null {
    return this.#free;
  }

  get isLow(): boolean {
    return this.#free !== null && this.#free < this.#minFree;
  }

  async measure(): Promise<number | null> {
    try {
      const stats = await statfs(this.#folder);
      this.#free = stats.bavail * stats.bsize;
    } catch {
      this.#free = null;
    }
    return this.#free;
  }

  /** Looks now. Throws `resource_exhausted` when less is left than new jobs may begin with. */
  async require(): Promise<void> {
    await this.measure();
    if (!this.isLow) return;
    throw new OarlockError(
      'resource_exhausted',
      `Only ${megabytes(this.#free ?? 0)} MB are free on the workspace disk; new jobs need at least ${megabytes(this.#minFree)} MB.`,
      {
        context: { free_bytes: this.#free, limit_bytes: this.#minFree },
        hint: 'Free some space, for example by deleting tasks or datasets that are no longer needed.',
      },
    );
  }

  close(): void {
    clearInterval(this.#timer);
  }
}

const megabytes = (bytes: number): number => Math.floor(bytes / 2 ** 20);
