/** Reads request bodies within bounds of size, time and memory shared by all requests. */
import type { IncomingMessage } from 'node:http';
import { HttpError } from './errors.js';

export interface BodyLimits {
  /** Largest body of one request, bytes. */
  readonly maxBytes: number;
  /** Largest sum of bodies held at once, bytes. */
  readonly maxTotalBytes: number;
  /** A body must arrive within this time, milliseconds … */
  readonly baseMs: number;
  /** … plus its size divided by this rate, bytes a second. */
  readonly minBytesPerSecond: number;
}

const EMPTY = Buffer.alloc(0);
const CLOSE = { connection: 'close' };

/** Whether the request announces a body. */
export const hasBody = (request: IncomingMessage): boolean =>
  request.headers['transfer-encoding'] !== undefined || Number(request.headers['content-length'] ?? 0) > 0;

const tooLarge = (maxBytes: number): HttpError =>
  new HttpError(413, 'resource_exhausted', `The request body is larger than ${Math.floor(maxBytes / 2 ** 20)} MB.`, {
    context: { limit_bytes: maxBytes },
    hint: 'Send a smaller body, or start the server with a larger --max-body.',
    retryable: false,
  });

const tooSlow = (): HttpError =>
  new HttpError(408, 'resource_exhausted', 'The request body did not arrive in time.', { retryable: true }, CLOSE);

const tooMany = (): HttpError =>
  new HttpError(
    429,
    'resource_exhausted',
    'Too many large requests are being received at once.',
    { retryable: true },
    { 'retry-after': '2' },
  );

/** One per server: knows how much all bodies take together. */
export class BodyReader {
  readonly #limits: BodyLimits;
  #held = 0;

  constructor(limits: BodyLimits) {
    this.#limits = limits;
  }

  /** Bytes of bodies being received or not yet released. */
  get held(): number {
    return this.#held;
  }

  /** The whole body. `release` gives its memory back to the budget; call it when the request is done. */
  async read(request: IncomingMessage): Promise<{ bytes: Buffer; release: () => void }> {
    const { maxBytes, maxTotalBytes, baseMs, minBytesPerSecond } = this.#limits;
    const announced = Number(request.headers['content-length'] ?? 0);
    if (announced > maxBytes) throw tooLarge(maxBytes);
    if (this.#held + announced > maxTotalBytes) throw tooMany();
    let buffer = EMPTY;
    let size = 0;
    let released = false;
    const release = () => {
      if (released) return;
      released = true;
      this.#held -= size;
    };
    const started = performance.now();
    try {
      await new Promise<void>((resolve, reject) => {
        const onData = (chunk: Buffer) => {
          if (size + chunk.length > maxBytes) return finish(tooLarge(maxBytes));
          if (this.#held + chunk.length > maxTotalBytes) return finish(tooMany());
          if (size + chunk.length > buffer.length) {
            // Grows with what has really come, so that announced sizes reserve nothing.
            const room = Math.max(
              size + chunk.length,
              Math.min(buffer.length * 2, maxBytes),
              Math.min(announced, 65_536),
            );
            const larger = Buffer.allocUnsafe(room);
            buffer.copy(larger, 0, 0, size);
            buffer = larger;
          }
          chunk.copy(buffer, size);
          size += chunk.length;
          this.#held += chunk.length;
        };
        const timer = setInterval(
          () => {
            if (performance.now() - started > baseMs + (size / minBytesPerSecond) * 1000) finish(tooSlow());
          },
          Math.min(1000, Math.max(20, baseMs / 4)),
        );
        const onEnd = () => finish();
        const onAbort = () =>
          finish(new HttpError(400, 'invalid_argument', 'The request ended before its body did.', {}, CLOSE));
        const finish = (error?: Error) => {
          clearInterval(timer);
          request.off('data', onData).off('end', onEnd).off('error', onAbort).off('close', onAbort);
          if (error === undefined) return resolve();
          request.pause();
          reject(error);
        };
        request.on('data', onData).on('end', onEnd).on('error', onAbort).on('close', onAbort);
      });
    } catch (error) {
      release();
      throw error;
    }
    return { bytes: buffer.subarray(0, size), release };
  }
}
