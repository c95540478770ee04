import assert from 'node:assert/strict';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { test } from 'node:test';
import type { OarlockError } from '../domain/errors.js';
import { computeConfig } from './config.js';
import { DeviceList } from './devices.js';
import { failure, submit, testCompute } from './testing/harness.js';

const light = { lane: 'light' } as const;

test('a call goes to a pool thread and comes back', async (t) => {
  const compute = testCompute(t);
  assert.deepEqual(await compute.light('echo', 1, 'ä', Buffer.from([1, 2])), [1, 'ä', new Uint8Array([1, 2])]);
  await assert.rejects(compute.light('missing'), /exports no function missing/);
  await assert.rejects(compute.light('runJob', 'x', '{}'), /no function for single calls/);
  await assert.rejects(compute.light('fail'), (error: OarlockError) => {
    assert.deepEqual([error.code, error.message], ['invalid_argument', 'the image is truncated']);
    return true;
  });
});

test('promise 26: short calls are bounded in number and in time, and the event loop stays free', async (t) => {
  const compute = testCompute(t, { lightQueue: 6 });
  await compute.light('echo'); // threads exist
  const delay = monitorEventLoopDelay({ resolution: 5 });
  delay.enable();
  const calls = Array.from({ length: 10 }, () => compute.light<string>('block', 250));
  const results = await Promise.allSettled(calls);
  delay.disable();
  const refused = results.filter((result) => result.status === 'rejected');
  assert.equal(refused.filter(({ reason }) => (reason as OarlockError).context.reason === 'queue_full').length, 4);
  assert.equal(results.length - refused.length, 6);
  assert.ok(delay.percentile(50) / 1e6 < 20, `median delay ${delay.percentile(50) / 1e6} ms`);
  const impatient = testCompute(t, { lightTimeoutMs: 400 });
  await assert.rejects(impatient.light('block', 1_000), (error: OarlockError) => error.context.reason === 'timeout');
});

test('a light job reports, waits its turn and can be stopped', async (t) => {
  const compute = testCompute(t);
  const job = submit(compute, { do: 'work', steps: 10_000, stepMs: 5 }, light);
  const second = submit(compute, { do: 'work', steps: 3, stepMs: 5 }, light);
  await job.first('step');
  assert.equal(second.handle.state, 'queued');
  assert.equal(await compute.light('echo').then(() => 'free'), 'free', 'short calls do not wait for imports');
  await job.handle.stop();
  const outcome = await job.handle.outcome;
  assert.ok(outcome.type === 'train' && outcome.stopped);
  assert.equal((await second.handle.outcome).type, 'train');
  assert.equal(second.events.at(-1)?.event.type, 'step');
  assert.deepEqual(compute.stats().hosts, [], 'no process is started for it');
  const panic = await failure(submit(compute, { do: 'panic' }, light).handle);
  assert.match(panic.message, /index out of bounds/);
});

test('a silent light job is shown as stalled', async (t) => {
  const compute = testCompute(t, { stallMs: 200 });
  const job = submit(compute, { do: 'silence', ms: 600 }, light);
  await job.reach('stalled');
  assert.equal((await job.handle.outcome).type, 'train');
});

test('GPUs are asked of a host, and only when there is a driver', async (t) => {
  const compute = testCompute(t);
  const answer = await compute.devices();
  if (answer.gpus.length === 0) {
    assert.match(answer.reason ?? '', /No NVIDIA driver/);
    assert.deepEqual(compute.stats().hosts, []);
  }
  const config = computeConfig({ workspace: '/nonexistent', devicesCacheMs: 10_000 });
  let asked = 0;
  const gpus = [{ kind: 'cuda' as const, index: 0, name: 'Test', memoryTotalMb: 1, memoryFreeMb: 1 }];
  const host = { isReady: true, devices: async () => ({ gpus, reason: null }) };
  const list = new DeviceList(
    config,
    async () => {
      asked++;
      return host as never;
    },
    () => true,
  );
  assert.deepEqual(await Promise.all([list.get(), list.get()]), [
    { gpus, reason: null },
    { gpus, reason: null },
  ]);
  assert.equal(asked, 1);
  const silent = new DeviceList(
    config,
    async () => undefined,
    () => true,
  );
  assert.match((await silent.get()).reason ?? '', /did not say/);
});
