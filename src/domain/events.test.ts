import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type DomainEvent, EventBus } from './events.js';

test('events have rising ids and reach listeners in order', () => {
  const bus = new EventBus(8, 100);
  const heard: DomainEvent[] = [];
  const stop = bus.subscribe((event) => heard.push(event));
  assert.equal(bus.publish('project', { id: 'P0001', action: 'created' }), 100);
  assert.equal(bus.publish('project', { id: 'P0001', action: 'deleted' }), 101);
  stop();
  bus.publish('project', { id: 'P0002', action: 'created' });
  assert.deepEqual(
    heard.map((event) => event.id),
    [100, 101],
  );
  assert.equal(bus.lastId, 102);
});

test('replay gives what came after an id, and says when something is forgotten', () => {
  const bus = new EventBus(4, 1);
  for (let n = 0; n < 10; n++) bus.publish('system', { message: String(n) });
  assert.deepEqual(
    bus.replay(8).events.map((event) => event.id),
    [9, 10],
  );
  assert.equal(bus.replay(8).gap, false);
  assert.deepEqual(bus.replay(10), { events: [], gap: false });
  assert.deepEqual(
    bus.replay(6).events.map((event) => event.id),
    [7, 8, 9, 10],
  );
  assert.equal(bus.replay(6).gap, false);
  assert.equal(bus.replay(5).gap, true);
  assert.equal(bus.replay(0).gap, true);
  assert.deepEqual(bus.replay(11), { events: [], gap: true });
  assert.deepEqual(bus.replay(Number.NaN), { events: [], gap: true });
});

test('a client that was there before a restart starts anew', () => {
  const before = new EventBus();
  const id = before.publish('system', { message: 'old' });
  const after = new EventBus(16, id + 5000);
  after.publish('system', { message: 'new' });
  assert.equal(after.replay(id).gap, true);
});

test('a listener that throws is dropped and the others still hear', () => {
  const bus = new EventBus(4, 1);
  let heard = 0;
  bus.subscribe(() => {
    throw new Error('broken');
  });
  bus.subscribe(() => {
    heard++;
  });
  bus.publish('system', { message: '' });
  bus.publish('system', { message: '' });
  assert.equal(heard, 2);
  assert.equal(bus.listeners, 1);
});

test('a ring that cannot hold anything is refused', () => {
  assert.throws(() => new EventBus(0), RangeError);
});
