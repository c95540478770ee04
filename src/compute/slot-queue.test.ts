import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { SlotQueue } from './slot-queue.js';

function make(capacity: (resource: string) => number = () => 1, maxQueue = 100) {
  const started: [string, number][] = [];
  const positions = new Map<string, [number, string[]]>();
  const queue = new SlotQueue<string>({
    capacity,
    maxQueue,
    start: (item, slots) => {
      started.push([item, slots[0] as number]);
      positions.delete(item);
    },
    waiting: (item, position, holders) => positions.set(item, [position, [...holders]]),
  });
  return { queue, started, positions };
}

test('jobs of one device start in order and know their place', () => {
  const { queue, started, positions } = make();
  for (const item of ['a', 'b', 'c']) queue.add(item, ['cuda:0']);
  queue.add('x', ['cuda:1']);
  assert.deepEqual(started, [
    ['a', 0],
    ['x', 0],
  ]);
  assert.deepEqual(positions.get('b'), [1, ['a']]);
  assert.deepEqual(positions.get('c'), [2, ['a']]);
  queue.release('a');
  assert.deepEqual(started.at(-1), ['b', 0]);
  assert.deepEqual(positions.get('c'), [1, ['b']]);
  assert.equal(queue.remove('c'), true);
  assert.equal(queue.remove('c'), false);
  assert.deepEqual([queue.queued, queue.running], [0, 2]);
});

test('a job that needs two devices is not overtaken for ever', () => {
  const { queue, started } = make();
  queue.add('a', ['0']);
  queue.add('both', ['0', '1']);
  queue.add('b', ['1']); // device 1 is free, but `both` came first
  queue.add('c', ['2']);
  assert.deepEqual(
    started.map(([item]) => item),
    ['a', 'c'],
  );
  queue.release('a');
  assert.equal(started.at(-1)?.[0], 'both');
  queue.release('both');
  assert.equal(started.at(-1)?.[0], 'b');
});

test('a freed slot number is given out again', () => {
  const { queue, started } = make(() => 2);
  for (const item of ['a', 'b', 'c', 'd']) queue.add(item, ['cpu']);
  queue.release('a');
  queue.release('b');
  assert.deepEqual(started, [
    ['a', 0],
    ['b', 1],
    ['c', 0],
    ['d', 1],
  ]);
});

test('a full queue refuses, except what can start at once', () => {
  const { queue } = make(() => 1, 1);
  assert.equal(queue.add('a', ['0']), true);
  assert.equal(queue.add('b', ['0']), true);
  assert.equal(queue.add('c', ['0']), false);
  assert.equal(queue.add('d', ['1']), true);
});

test('no slot is ever held twice, nothing is lost, each device keeps its order', () => {
  const action = fc.oneof(
    fc.record({ add: fc.uniqueArray(fc.constantFrom('0', '1', '2'), { minLength: 1 }) }),
    fc.record({ release: fc.nat(5) }),
    fc.record({ remove: fc.nat(5) }),
  );
  fc.assert(
    fc.property(fc.array(action, { maxLength: 60 }), fc.integer({ min: 1, max: 2 }), (actions, slots) => {
      const needs = new Map<number, string[]>();
      const live = new Set<number>();
      const order: number[] = [];
      const queue = new SlotQueue<number>({
        capacity: () => slots,
        maxQueue: 1_000,
        start: (item) => {
          live.add(item);
          order.push(item);
          for (const device of ['0', '1', '2']) {
            assert.ok([...live].filter((other) => needs.get(other)?.includes(device)).length <= slots);
          }
        },
        waiting: () => {},
      });
      let next = 0;
      const pick = (from: number[], index: number): number | undefined => from[index % Math.max(1, from.length)];
      for (const act of actions) {
        if ('add' in act) {
          needs.set(next, act.add);
          queue.add(next++, act.add);
        } else if ('release' in act) {
          const item = pick([...live], act.release);
          if (item === undefined) continue;
          live.delete(item);
          queue.release(item);
        } else {
          const item = pick(queue.items(), act.remove);
          if (item !== undefined) assert.ok(queue.remove(item));
        }
        assert.equal(queue.running, live.size);
      }
      for (const device of ['0', '1', '2']) {
        const mine = order.filter((item) => needs.get(item)?.includes(device));
        assert.deepEqual(
          mine,
          [...mine].sort((a, b) => a - b),
        );
      }
      while (live.size > 0) {
        const item = [...live][0] as number;
        live.delete(item);
        queue.release(item);
      }
      assert.equal(queue.queued, 0);
    }),
    { numRuns: 200 },
  );
});
