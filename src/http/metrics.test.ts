import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TaskStatus } from '../domain/enums.js';
import { EventBus } from '../domain/events.js';
import { HttpMetrics } from './metrics.js';

test('running trainings have their pace in /metrics, ended ones have not', async () => {
  const events = new EventBus();
  const { registry } = new HttpMetrics({ events });
  const progress = (id: string, wait: number) =>
    events.publish('progress', {
      ...{ id, epoch: 1, num_epochs: 2, step: 2, steps: 9, eta: null, metrics: {} },
      ...{ images_per_second: 64, step_seconds: 0.5, data_wait_seconds: wait, cache_hit_rate: wait > 0 ? 0.75 : null },
    });
  progress('T0001', 0.125);
  progress('T0002', 0);
  const text = await registry.metrics();
  assert.match(text, /^oarlock_training_data_wait_seconds\{task="T0001"\} 0\.125$/m);
  assert.match(text, /^oarlock_training_step_seconds\{task="T0002"\} 0\.5$/m);
  assert.match(text, /^oarlock_training_images_per_second\{task="T0001"\} 64$/m);
  assert.match(text, /^oarlock_training_cache_hit_rate\{task="T0001"\} 0\.75$/m);
  assert.ok(!text.includes('cache_hit_rate{task="T0002"}'), 'a training without a cache has no rate');
  assert.match(text, /^oarlock_event_listeners 0$/m);
  events.publish('task', { id: 'T0001', pid: 'P0001', action: 'changed', status: TaskStatus.XTRAINDONE });
  events.publish('task', { id: 'T0002', pid: 'P0001', action: 'changed', status: TaskStatus.XTRAINING });
  const later = await registry.metrics();
  assert.ok(!later.includes('T0001') && later.includes('T0002'));
});
