/** The host's end of the job protocol: Node's IPC channel, or lines on standard input and a descriptor. */
import { Socket } from 'node:net';
import { asToHost, encodeLine, type FromHost, LineDecoder, type ToHost } from '../protocol.js';

/** Messages on their way; beyond this number only what must not be lost is sent. */
const CONGESTED = 16;

export interface Transport {
  /** Resolves when the message has left the process, or never will. */
  send(message: FromHost): Promise<void>;
  congested(): boolean;
}

export interface TransportEvents {
  message(message: ToHost): void;
  /** The server is gone. */
  lost(why: string): void;
}

class Counter {
  #open = 0;
  congested = (): boolean => this.#open > CONGESTED;

  track(start: (done: () => void) => void): Promise<void> {
    this.#open++;
    return new Promise((resolve) => {
      start(() => {
        this.#open--;
        resolve();
      });
    });
  }
}

export function ipcTransport(events: TransportEvents): Transport {
  const counter = new Counter();
  process.on('message', (value) => {
    const message = asToHost(value);
    if (message !== undefined) events.message(message);
  });
  process.on('disconnect', () => events.lost('its IPC channel was closed'));
  return {
    congested: counter.congested,
    send: (message) =>
      counter.track((done) => {
        if (process.connected !== true || process.send === undefined) done();
        else process.send(message, () => done());
      }),
  };
}

/** `output` is the descriptor the protocol is written to; standard output itself is left to whoever prints. */
export function streamTransport(output: number, events: TransportEvents): Transport {
  const counter = new Counter();
  // A plain socket, unlike process.stdout, does not block the thread while the reader is slow.
  const out = new Socket({ fd: output, readable: false, writable: true });
  out.on('error', () => events.lost('its output was closed'));
  const decoder = new LineDecoder(
    (value) => {
      const message = asToHost(value);
      if (message !== undefined) events.message(message);
    },
    () => {},
  );
  process.stdin.on('data', (chunk: Buffer) => {
    try {
      decoder.push(chunk);
    } catch (error) {
      events.lost(`its input is no job protocol: ${error instanceof Error ? error.message : String(error)}`);
    }
  });
  process.stdin.on('end', () => events.lost('its input ended'));
  process.stdin.on('error', () => events.lost('its input failed'));
  return {
    congested: counter.congested,
    send: (message) =>
      counter.track((done) => {
        if (out.destroyed) done();
        else out.write(encodeLine(message), () => done());
      }),
  };
}
