import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { readType } from './context.js';
import { TaskStatus } from './enums.js';
import { Harness } from './testing/harness.js';
import { duration, localTime } from './time.js';

describe('projects and their binding', () => {
  it('bind only a dataset that exists and has the same type, and only before there are tasks', async (t) => {
    const h = await Harness.start(t);
    const { projects, datasets, workspace, tasks } = h.services;
    const { id } = await projects.create({ name: 'p', desc: '', type: 'classification' });
    const other = await datasets.create({ name: 'd', desc: '', type: 'detection' });
    const bind = (did: string): Promise<void> => workspace.setAttributes('project', id, { did });
    await assert.rejects(bind('D0099'), { code: 'not_found' });
    await assert.rejects(bind(other.id), { code: 'invalid_argument', message: /detection dataset/ });
    await assert.rejects(tasks.create({ pid: id }), { code: 'not_ready' });
    await assert.rejects(tasks.suggest(id), { code: 'not_ready' });
    const did = await h.dataset();
    await bind(did);
    const tid = await h.task(id);
    await bind(did);
    await assert.rejects(bind(await h.dataset()), { code: 'conflict' });
    await tasks.delete(tid);
    await bind('');
    assert.equal(projects.get(id).did, '');
  });

  it('refuse attributes that are not for clients', async (t) => {
    const h = await Harness.start(t);
    const tid = await h.task();
    const { workspace, tasks } = h.services;
    const before = tasks.get(tid);
    for (const [struct, id, values, code] of [
      ['task', tid, { path: '/' }, 'invalid_argument'],
      ['task', tid, { parent_id: 'T0009' }, 'invalid_argument'],
      ['task', tid, { status: '4' }, 'invalid_argument'],
      ['task', tid, { name: 5 }, 'invalid_argument'],
      ['task', tid, { name: 'x'.repeat(5000) }, 'invalid_argument'],
      ['task', tid, { name: 'good', id: 'T0002' }, 'invalid_argument'],
      ['task', 'T0009', { name: 'x' }, 'not_found'],
      ['nothing', tid, { name: 'x' }, 'invalid_argument'],
      ['__proto__', tid, { name: 'x' }, 'invalid_argument'],
      ['exported_model', 'EM0001', { name: 'x' }, 'invalid_argument'],
      ['project', 'P0001', { constructor: 'x' }, 'invalid_argument'],
    ] as const) {
      await assert.rejects(workspace.setAttributes(struct, id, values), { code }, JSON.stringify([struct, values]));
    }
    assert.deepEqual(tasks.get(tid), before);
    await workspace.setAttributes('task', tid, { name: '名', desc: 'd' });
    assert.deepEqual(workspace.attributes('task', tid, ['name', 'desc', 'id', 'struct', 'pid']), {
      name: '名',
      desc: 'd',
      id: tid,
      pid: 'P0001',
    });
    assert.throws(() => workspace.attributes('task', tid, ['params']), { code: 'invalid_argument' });
  });

  it('promise 2: deleting a project takes its tasks and nothing else', async (t) => {
    const h = await Harness.start(t);
    const tid = await h.trained();
    const keep = await h.task(await h.project('D0001'));
    const { projects, tasks, store } = h.services;
    const { path, pid } = tasks.get(tid);
    await projects.delete(pid);
    assert.ok(!existsSync(path));
    assert.throws(() => tasks.get(tid), { code: 'not_found' });
    assert.ok(existsSync(tasks.get(keep).path));
    assert.deepEqual([store.list('training').length, store.curve(tid).length], [0, 0]);
    await assert.rejects(projects.delete(pid), { code: 'not_found' });
    const next = await projects.create({ name: 'n', desc: '', type: 'classification' });
    assert.equal(next.id, 'P0003');
  });
});

it('many deletions at once leave nothing behind', async (t) => {
  const h = await Harness.start(t);
  const { datasets, config, store } = h.services;
  const ids: string[] = [];
  for (let n = 0; n < 20; n++) ids.push((await datasets.create({ name: 'x', desc: '', type: 'classification' })).id);
  await Promise.all(ids.map((id) => datasets.delete(id)));
  assert.deepEqual(readdirSync(join(config.workspace, 'datasets')), []);
  await h.until(() => store.list('trash').length === 0);
  assert.deepEqual(readdirSync(join(config.workspace, '.trash')), []);
});

describe('task parameters', () => {
  it('are completed by defaults and changed only before training', async (t) => {
    const h = await Harness.start(t);
    const tid = await h.task(undefined, { num_epochs: '7', unknown: 1 });
    const { tasks, training } = h.services;
    const params = tasks.params(tid);
    assert.deepEqual([params.num_epochs, params.model, params.unknown], [7, 'MobileNetV2', undefined]);
    await tasks.setParams(tid, { batch_size: 2 });
    assert.deepEqual([tasks.params(tid).batch_size, tasks.params(tid).num_epochs], [2, 7]);
    await assert.rejects(tasks.setParams(tid, { batch_size: 0 }), { code: 'invalid_argument' });
    const mirror = join(tasks.get(tid).path, 'params.json');
    await h.until(() => existsSync(mirror) && JSON.parse(readFileSync(mirror, 'utf8')).train.batch_size === 2);
    await training.start(tid);
    await assert.rejects(tasks.setParams(tid, { batch_size: 3 }), {
      code: 'conflict',
      context: { state: 'XTRAINING' },
    });
  });

  it('of a pruning task are those of its parent', async (t) => {
    const h = await Harness.start(t);
    const tid = await h.task(undefined, { num_epochs: 9 });
    const { tasks } = h.services;
    await assert.rejects(tasks.create({ pid: 'P0001', parent_id: 'T0099' }), { code: 'not_found' });
    const other = await h.project('D0001');
    await assert.rejects(tasks.create({ pid: other, parent_id: tid }), { code: 'invalid_argument' });
    const { id } = await tasks.create({ pid: 'P0001', parent_id: tid, train: { num_epochs: 1 } });
    assert.equal(tasks.params(id).num_epochs, 9);
    assert.equal(tasks.get(id).status, TaskStatus.XINIT);
  });

  it('are suggested only for an imported dataset', async (t) => {
    const h = await Harness.start(t);
    const pid = await h.project(await h.dataset(false));
    const { tasks } = h.services;
    const before = await tasks.suggest(pid);
    assert.equal(before.pretrain_weights, null);
    assert.equal((await tasks.suggest(pid, { model: 'ResNet50' })).model, 'ResNet50');
    await assert.rejects(tasks.suggest('P0099'), { code: 'not_found' });
  });
});

describe('words of the wire', () => {
  it('project types by name and number', () => {
    assert.deepEqual(readType('t', 'classification'), { type: 'classification' });
    assert.deepEqual(readType('t', 1), { type: 'detection' });
    assert.deepEqual(readType('t', '4'), { type: 'segmentation', remote: true });
    assert.deepEqual(readType('t', 'remote_segmentation'), { type: 'segmentation', remote: true });
    for (const bad of ['', 'x', '5', -1, 5, 1.5]) assert.throws(() => readType('t', bad), { code: 'invalid_argument' });
  });
  it('times', () => {
    assert.equal(localTime(new Date(2024, 4, 2, 3, 4, 5)), '2024-05-02 03:04:05');
    assert.equal(duration(3725.9), '1小时2分5秒');
    assert.equal(duration(100 * 3600), '100小时0分0秒');
    assert.equal(duration(-1), '0小时0分0秒');
  });
});
