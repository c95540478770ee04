import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { EventCoalescer } from './event-coalescer.js';
import type { JobEvent } from './jobs.gen.js';

const progress = (done: number): JobEvent => ({ type: 'progress', done, total: 1_000, stage: 'checking' });
const saved = (epoch: number): JobEvent => ({ type: 'saved', epoch, path: '/x', best: false });

test('of many steps the newest are sent, ten times a second; checkpoints always and in order', async () => {
  const sent: JobEvent[] = [];
  const coalescer = new EventCoalescer(
    (_id, event) => sent.push(event),
    () => false,
    50,
  );
  const start = performance.now();
  let n = 0;
  while (performance.now() - start < 400) {
    for (let i = 0; i < 50; i++) coalescer.push('a', progress(++n));
    await sleep(1);
  }
  coalescer.push('a', saved(1));
  coalescer.push('a', progress(++n));
  coalescer.push('a', saved(2));
  coalescer.push('a', progress(++n));
  coalescer.finish('a');
  const seen = sent.filter((event) => event.type === 'progress').map((event) => event.done);
  assert.ok(seen.length >= 4 && seen.length <= 14, `${seen.length} of ${n}`);
  assert.deepEqual(
    seen,
    [...seen].sort((a, b) => a - b),
  );
  assert.deepEqual(sent.slice(-4), [saved(1), progress(n - 1), saved(2), progress(n)]);
});

test('while the receiver is slow, only what must not be lost is sent', async () => {
  const sent: JobEvent[] = [];
  let slow = true;
  const coalescer = new EventCoalescer(
    (_id, event) => sent.push(event),
    () => slow,
    10,
  );
  for (let n = 1; n <= 100; n++) coalescer.push('a', progress(n));
  await sleep(50);
  assert.deepEqual(sent, []);
  slow = false;
  await sleep(50);
  assert.deepEqual(sent, [progress(100)]);
});

test('a flood of warnings is cut off with a remark', () => {
  let count = 0;
  let last: JobEvent | undefined;
  const coalescer = new EventCoalescer((_id, event) => {
    count++;
    last = event;
  });
  for (let n = 0; n < 5_000; n++) coalescer.push('a', { type: 'warning', message: `w${n}` });
  assert.equal(count, 1_000);
  assert.match(last?.type === 'warning' ? last.message : '', /more warnings/);
});
