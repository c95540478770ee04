import assert from 'node:assert/strict';
import { test } from 'node:test';
import { toCurves } from './curves.js';
import type { CurvePoint } from './records.js';

test('history becomes one curve a metric and series', () => {
  const at = 0;
  const points: CurvePoint[] = [
    { series: 'train', x: 1, values: { Epoch: 1, Step: 1, loss: 2.5, lr: 0.1 }, at },
    { series: 'train', x: 2, values: { Epoch: 1, Step: 2, loss: null, lr: 0.1 }, at },
    { series: 'eval', x: 1, values: { acc1: 0.5 }, at },
  ];
  assert.deepEqual(toCurves(points), {
    train: {
      loss: [
        [1, 2.5],
        [2, null],
      ],
      lr: [
        [1, 0.1],
        [2, 0.1],
      ],
    },
    eval: { acc1: [[1, 0.5]] },
  });
  assert.deepEqual(toCurves([]), { train: {}, eval: {} });
});

test('thinning keeps ends and spikes and stays within its bound', () => {
  const points: CurvePoint[] = Array.from({ length: 50_000 }, (_, n) => ({
    series: 'train',
    x: n + 1,
    values: { loss: n === 31_111 ? 99 : n === 7 ? -5 : n % 977 === 0 ? null : 1 / (n + 1) },
    at: 0,
  }));
  const loss = toCurves(points, 1000).train.loss ?? [];
  assert.ok(loss.length <= 1000, `${loss.length} points`);
  assert.deepEqual(loss[0], [1, null]);
  assert.deepEqual(loss.at(-1)?.[0], 50_000);
  assert.ok(loss.some(([x, y]) => x === 31_112 && y === 99));
  assert.ok(loss.some(([x, y]) => x === 8 && y === -5));
  assert.ok(loss.every(([x], n) => n === 0 || x > (loss[n - 1]?.[0] ?? 0)));
});
