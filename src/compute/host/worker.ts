/** A pool thread: native calls block here, so that no event loop ever waits for one. */
import { workerData } from 'node:worker_threads';
import { loadAddon } from '../native-addon.js';

export interface NativeCall {
  fn: string;
  args: unknown[];
  /** A call that waited until after this time (ms since 1970) is not made any more: its caller has gone. */
  deadline?: number;
}

const { addon: path } = workerData as { addon: string };
let exports: Promise<Record<string, unknown>> | undefined;

export default async function call({ fn, args, deadline }: NativeCall): Promise<unknown> {
  if (deadline !== undefined && Date.now() > deadline) throw new Error('the call waited too long for a free thread');
  exports ??= loadAddon(path) as unknown as Promise<Record<string, unknown>>;
  const addon = await exports;
  const native = Object.hasOwn(addon, fn) ? addon[fn] : undefined;
  if (typeof native !== 'function') throw new Error(`the native addon exports no function ${fn}`);
  return await native(...args);
}
