/** Runs ONNX Runtime in a process of its own: a crash there, or a conversion without end, costs one task and no more. */
import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { OnnxReply, OnnxTask } from '../onnx/protocol.js';

const MAIN = fileURLToPath(new URL('../onnx/main.js', import.meta.url));

export interface OnnxOptions {
  /** Ends the process. */
  signal: AbortSignal;
  onProgress?: (done: number, total: number) => void;
  /** Longest time in all, milliseconds. */
  limitMs?: number;
}

/** The last reply; a process that ends without one failed. */
export function runOnnx(task: OnnxTask, { signal, onProgress, limitMs }: OnnxOptions): Promise<OnnxReply> {
  return new Promise((resolve) => {
    const failed = (message: string): void => resolve({ t: 'failed', message });
    if (signal.aborted) {
      failed('it was stopped');
      return;
    }
    // In this host's group: whatever ends the host ends it too.
    const child = fork(MAIN, [], { execArgv: [], serialization: 'json' });
    const kill = (why: string): void => {
      failed(why);
      child.kill('SIGKILL');
    };
    const stop = (): void => kill('it was stopped');
    signal.addEventListener('abort', stop, { once: true });
    const timer =
      limitMs === undefined ? undefined : setTimeout(() => kill(`it took more than ${limitMs / 1000} s`), limitMs);
    child.on('message', (reply: OnnxReply) => {
      if (reply.t === 'progress') onProgress?.(reply.done, reply.total);
      else resolve(reply);
    });
    child.on('error', (error) => kill(error.message));
    child.on('exit', (code, exitSignal) => {
      clearTimeout(timer);
      signal.removeEventListener('abort', stop);
      failed(`its process ended (${exitSignal ?? `exit code ${code}`})`);
    });
    child.send(task, (error) => error !== null && kill(error.message));
  });
}
