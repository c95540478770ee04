import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withEntries } from './description.js';
import { normalized, TopK } from './measure.js';
import { difference, rankedDifference } from './session.js';

test('top-k accuracy: of equal scores the lower class is the better one; scores that are no numbers have none', () => {
  const scores = Float32Array.of(0.2, 0.5, 0.3, /**/ 0.4, 0.4, 0.2, /**/ 0.1, 0.2, 0.7);
  const [one, two] = [new TopK(1, 3), new TopK(2, 3)];
  for (const counter of [one, two]) counter.count(scores, [1, 1, 0]);
  assert.equal(one.share, 1 / 3);
  assert.equal(two.share, 2 / 3);
  assert.equal(new TopK(1, 3).share, null);
  one.count(Float32Array.of(Number.NaN, 0, 1), [2]);
  assert.equal(one.share, null);
});

test('rows of RGB bytes become normalised planes', () => {
  const spec = { size: [2, 2] as [number, number], mean: [0.5, 0.25, 0], std: [0.5, 0.25, 1] };
  const pixels = Uint8Array.of(0, 255, 51, 255, 0, 51, 0, 0, 0, 255, 255, 255);
  const planes = [-1, 1, -1, 1, /**/ 3, -1, -1, 3, /**/ 0.2, 0.2, 0, 1].map(Math.fround);
  assert.deepEqual([...normalized(pixels, 1, spec)], planes);
});

test('differences; NaN is never equal', () => {
  assert.equal(difference(Float32Array.of(1, 2), Float32Array.of(1, 2.5)), 0.5);
  assert.equal(difference(Float32Array.of(1), Float32Array.of(1, 2)), Number.POSITIVE_INFINITY);
  assert.equal(difference(Float32Array.of(Number.NaN, 1), Float32Array.of(0, 1)), Number.POSITIVE_INFINITY);
});

test('detections differ by rank; one that could be below a threshold counts little', () => {
  const near = (a: number, b: number): void => assert.ok(Math.abs(a - b) < 1e-6, `${a} and ${b}`);
  near(rankedDifference(Float32Array.of(0.9, 0.5), Float32Array.of(0.8, 0.5)), 0.1);
  near(rankedDifference(Float32Array.of(0.9), Float32Array.of(0.9, 0.01)), 0);
  near(rankedDifference(Float32Array.of(0.9, 0.4, 0.2), Float32Array.of(0.9)), 0.35);
  near(rankedDifference(Float32Array.of(), Float32Array.of()), 0);
});

test('entries of a model.yml are replaced whole, others stay', () => {
  const text = 'Model: A\nMeasured:\n  old:\n  - 1\nTransforms:\n- Resize:\n    x: 1\nMeasured: {"b":2}\n';
  assert.equal(
    withEntries(text, { Measured: { a: 1 } }),
    'Model: A\nTransforms:\n- Resize:\n    x: 1\nMeasured: {"a":1}\n',
  );
});
