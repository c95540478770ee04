/** Load generator: `clients` connections, one request at a time each, for a bounded time, against a loopback server only. */
import { connect, type Socket } from 'node:net';
import { performance } from 'node:perf_hooks';

export interface LoadResult {
  perSecond: number;
  p50: number;
  p99: number;
  errors: number;
}

/** One keep-alive HTTP/1.1 client; reconnects when the server closes. */
class Client {
  #socket: Socket | undefined;
  #buffer = Buffer.alloc(0);
  #wake: (() => void) | undefined;
  #closed = false;

  constructor(
    private readonly port: number,
    private readonly request: string,
  ) {}

  #open(): Promise<void> {
    this.#closed = false;
    this.#buffer = Buffer.alloc(0);
    return new Promise((resolve, reject) => {
      const socket = connect(this.port, '127.0.0.1', resolve);
      socket.setNoDelay(true);
      socket.on('error', reject);
      // Events of a connection that is given up already must not touch the next one.
      socket.on('data', (data) => {
        if (this.#socket !== socket) return;
        this.#buffer = this.#buffer.length === 0 ? data : Buffer.concat([this.#buffer, data]);
        this.#wake?.();
      });
      socket.on('close', () => {
        if (this.#socket !== socket) return;
        this.#closed = true;
        this.#wake?.();
      });
      this.#socket = socket;
    });
  }

  async once(): Promise<boolean> {
    if (!this.#socket || this.#closed) await this.#open();
    this.#socket?.write(this.request);
    let need = -1;
    let ok = false;
    let keep = true;
    for (;;) {
      if (need < 0) {
        const end = this.#buffer.indexOf('\r\n\r\n');
        if (end >= 0) {
          const head = this.#buffer.subarray(0, end).toString('latin1');
          need = end + 4 + Number(/content-length: *(\d+)/i.exec(head)?.[1] ?? 0);
          ok = head.startsWith('HTTP/1.1 200') || head.startsWith('HTTP/1.0 200');
          keep = head.startsWith('HTTP/1.1') && !/connection: *close/i.test(head);
        }
      }
      if (need >= 0 && this.#buffer.length >= need) break;
      if (this.#closed) return false;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    this.#buffer = this.#buffer.subarray(need);
    if (!keep) {
      this.#socket?.destroy();
      this.#closed = true;
    }
    return ok;
  }

  end(): void {
    this.#socket?.destroy();
  }
}

export async function load(port: number, path: string, clients: number, seconds: number): Promise<LoadResult> {
  const request = `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nConnection: keep-alive\r\n\r\n`;
  const times: number[] = [];
  let errors = 0;
  const end = performance.now() + seconds * 1000;
  const started = performance.now();
  await Promise.all(
    Array.from({ length: clients }, async () => {
      const client = new Client(port, request);
      while (performance.now() < end) {
        const before = performance.now();
        try {
          if (!(await client.once())) errors += 1;
        } catch {
          errors += 1;
        }
        times.push(performance.now() - before);
      }
      client.end();
    }),
  );
  const elapsed = (performance.now() - started) / 1000;
  times.sort((a, b) => a - b);
  const at = (share: number): number =>
    times[Math.min(times.length - 1, Math.floor(times.length * share))] ?? Number.NaN;
  return { perSecond: times.length / elapsed, p50: at(0.5), p99: at(0.99), errors };
}
