/** Standard error of compute hosts: into the logs of the running jobs, and the last lines kept for the reason of an end. */
import { createWriteStream, type WriteStream } from 'node:fs';

/** A host that prints without end must not fill the disk. */
const MAX_LOG_BYTES = 16 * 1024 * 1024;
const KEPT_LINES = 50;
const MAX_LINE = 500;

/** Appends to one job's log file. A log that cannot be written never harms the job. */
export class JobLog {
  #stream: WriteStream | undefined;
  #left = MAX_LOG_BYTES;

  constructor(private readonly path: string | undefined) {}

  write(text: string): void {
    if (this.path === undefined || this.#left <= 0) return;
    this.#left -= Buffer.byteLength(text);
    this.#stream ??= createWriteStream(this.path, { flags: 'a' }).on('error', () => {
      this.#left = 0;
    });
    this.#stream.write(this.#left > 0 ? text : `${text}\n(more output is not kept)\n`);
  }

  /** Resolves when all is in the file. */
  close(): Promise<void> {
    this.#left = 0;
    const stream = this.#stream;
    if (stream === undefined || stream.destroyed) return Promise.resolve();
    return new Promise((resolve) => {
      stream.once('close', () => resolve());
      stream.end();
    });
  }
}

/** The last lines of a text that arrives in pieces. */
export class Tail {
  #lines: string[] = [];
  #open = '';

  push(text: string): void {
    const lines = (this.#open + text).split('\n');
    this.#open = (lines.pop() ?? '').slice(-MAX_LINE);
    for (const line of lines) if (line.trim() !== '') this.#lines.push(line.slice(0, MAX_LINE));
    this.#lines = this.#lines.slice(-KEPT_LINES);
  }

  get lines(): string[] {
    return this.#open.trim() === '' ? [...this.#lines] : [...this.#lines, this.#open];
  }
}
