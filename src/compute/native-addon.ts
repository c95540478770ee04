/** What both native addons export, and how they are loaded. */
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

export interface NativeAddon {
  /** Sets the process-wide sink of job events; called once, on the thread whose event loop receives them. */
  subscribe(sink: (jobId: string, eventJson: string) => void): void;
  /** Runs a job to its end on the calling thread; returns a `JobOutcome` as JSON. Throws only after a caught panic. */
  runJob(jobId: string, specJson: string): string;
  /** Asks a running job to stop; false when there is no such job. From any thread. */
  control(jobId: string, command: 'stop'): boolean;
  /** Engine only: `{gpus, reason}` as JSON. */
  devices?(): string;
  version?(): string;
}

/** Loads a `.node` file, or an ES module with the same exports. */
export async function loadAddon(path: string): Promise<NativeAddon> {
  const loaded: unknown = path.endsWith('.node')
    ? createRequire(import.meta.url)(path)
    : await import(pathToFileURL(path).href);
  const addon = loaded as Partial<NativeAddon>;
  for (const name of ['subscribe', 'runJob', 'control'] as const) {
    if (typeof addon[name] !== 'function') throw new Error(`${path} exports no function ${name}`);
  }
  return addon as NativeAddon;
}
