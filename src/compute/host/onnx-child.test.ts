import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { OnnxTask } from '../onnx/protocol.js';
import { runOnnx } from './onnx-child.js';

test('a task that fails, takes too long or is stopped is a failed reply, and leaves nothing', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'oarlock-onnx-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const task: OnnxTask = {
    task: 'convert',
    spec: { model: join(folder, 'nowhere'), save_dir: folder, threads: 1 },
  };
  const { signal } = new AbortController();
  const failed = await runOnnx(task, { signal });
  assert.ok(failed.t === 'failed' && /model\.onnx/.test(failed.message), JSON.stringify(failed));
  assert.deepEqual(readdirSync(folder), []);
  assert.deepEqual(await runOnnx(task, { signal, limitMs: 1 }), { t: 'failed', message: 'it took more than 0.001 s' });
  const stop = new AbortController();
  const reply = runOnnx(task, { signal: stop.signal });
  stop.abort();
  assert.deepEqual(await reply, { t: 'failed', message: 'it was stopped' });
  assert.deepEqual(await runOnnx(task, { signal: stop.signal }), { t: 'failed', message: 'it was stopped' });
});
