import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { PretrainedModelStatus as S } from './enums.js';
import { Harness } from './testing/harness.js';

describe('pretrained models', () => {
  it('refuses what is no checkpoint of that task', async (t) => {
    const h = await Harness.start(t);
    const tid = await h.trained();
    const { models, tasks } = h.services;
    const { path, pid } = tasks.get(tid);
    const model = { pid, tid, name: 'base', source_path: join(path, 'output/best_model') };
    await assert.rejects(models.addPretrained({ ...model, tid: 'T0009' }), { code: 'not_found' });
    await assert.rejects(models.addPretrained({ ...model, pid: 'P0009' }), { code: 'not_found' });
    await assert.rejects(models.addPretrained({ ...model, source_path: '' }), { code: 'invalid_argument' });
    await assert.rejects(models.addPretrained({ ...model, source_path: '/etc' }), { code: 'forbidden_path' });
    await assert.rejects(models.addPretrained({ ...model, source_path: path }), { code: 'not_ready' });
    await assert.rejects(models.addPretrained({ ...model, source_path: join(path, 'no') }), { code: 'not_found' });
    assert.throws(() => models.get('PM0001'), { code: 'not_found' });
    await assert.rejects(models.deletePretrained('PM0001'), { code: 'not_found' });
    const other = await h.project('D0001');
    await assert.rejects(models.addPretrained({ ...model, pid: other }), { code: 'invalid_argument' });
  });

  it('copies in the background and tells where it comes from', async (t) => {
    const h = await Harness.start(t);
    const tid = await h.trained();
    const { models, tasks, config } = h.services;
    const { path, pid } = tasks.get(tid);
    const { id } = await models.addPretrained({ pid, tid, name: 'base', source_path: join(path, 'output/best_model') });
    assert.equal(id, 'PM0001');
    await h.until(() => models.pretrained()[0]?.status === S.XPSAVEDONE);
    const saved = join(config.workspace, 'pretrain/PM0001');
    assert.ok(readdirSync(saved).includes('model.safetensors'));
    const record = models.get(id);
    assert.deepEqual(
      [record.model, record.type, record.path, record.eval_result],
      ['MobileNetV2', 'classification', saved, null],
    );
    assert.deepEqual(record.dataset_attr, {
      name: 'set',
      desc: '',
      labels: ['a', 'b<'],
      train_num: 60,
      val_num: 20,
      test_num: 3,
    });
    assert.equal((record.task_params.train as { num_epochs: number }).num_epochs, 2);
    await h.services.tasks.delete(tid);
    await h.services.projects.delete(pid);
    assert.ok(existsSync(saved));
    await models.deletePretrained(id);
    assert.ok(!existsSync(saved));
    assert.deepEqual(models.pretrained(), []);
  });

  it('a copy that a crash interrupted begins again', async (t) => {
    const h = await Harness.start(t);
    const tid = await h.trained();
    const { models, tasks, store } = h.services;
    const { path, pid } = tasks.get(tid);
    const { id } = await models.addPretrained({ pid, tid, name: 'b', source_path: join(path, 'output/best_model') });
    await h.until(() => models.pretrained()[0]?.status === S.XPSAVEDONE);
    const record = store.get('pretrained', id);
    assert.ok(record);
    await store.change((tx) => {
      tx.put('pretrained', { ...record, status: S.XPSAVING });
      tx.put('pretrained', { ...record, id: 'PM0007', status: S.XPSAVING, source: '/gone', path: `${record.path}7` });
    });
    await h.crash();
    const after = h.services.models;
    await h.until(() => after.pretrained().every((model) => model.status >= S.XPSAVEFAIL));
    assert.deepEqual(
      after.pretrained().map((model) => model.status),
      [S.XPSAVEDONE, S.XPSAVEFAIL],
    );
  });
});

describe('exported models', () => {
  it('are registered while the export runs and listed once it is done', async (t) => {
    const h = await Harness.start(t);
    const tid = await h.trained();
    const { models, jobs, tasks } = h.services;
    const { path, pid } = tasks.get(tid);
    const save_dir = join(path, 'export_model');
    await assert.rejects(models.addExported({ pid, tid, name: 'e' }), { code: 'invalid_argument' });
    await assert.rejects(models.addExported({ pid, tid, name: 'e', path: '/etc/x' }), { code: 'forbidden_path' });
    await jobs.export(tid, { save_dir });
    const { id } = await models.addExported({ pid, tid, name: 'e', path: save_dir, eval_results: {} });
    assert.equal(id, 'EM0001');
    assert.deepEqual(models.exported(), []);
    mkdirSync(join(save_dir, 'inference_model'), { recursive: true });
    h.compute.job(`${tid}/export`).end({ type: 'export', path: save_dir, parameters: 1, macs: 1 });
    await h.until(() => models.exported().length === 1);
    await models.deleteExported(id);
    assert.ok(!existsSync(save_dir));
    assert.ok(existsSync(join(path, 'output/best_model')));
    await assert.rejects(models.deleteExported(id), { code: 'not_found' });
  });

  it('promise 2: deleting the record never deletes what the server did not make', async (t) => {
    const h = await Harness.start(t);
    const tid = await h.trained();
    const { models, tasks, config } = h.services;
    const { path, pid } = tasks.get(tid);
    const outside = join(h.folder, 'out/mine');
    mkdirSync(join(outside, 'inference_model'), { recursive: true });
    const folder = join(path, 'shared');
    mkdirSync(join(folder, 'inference_model'), { recursive: true });
    writeFileSync(join(folder, 'notes.txt'), 'mine');
    const places = [
      outside,
      config.workspace,
      join(config.workspace, 'projects'),
      path,
      join(path, 'output'),
      h.folder,
    ];
    for (const place of places.slice(0, 5)) {
      const { id } = await models.addExported({ pid, tid, name: 'e', path: place });
      await models.deleteExported(id);
      assert.ok(existsSync(place), place);
    }
    assert.ok(existsSync(join(outside, 'inference_model')));
    assert.ok(existsSync(join(path, 'output/best_model/model.safetensors')));
    const { id } = await models.addExported({ pid, tid, name: 'e', path: folder });
    await models.deleteExported(id);
    assert.deepEqual(readdirSync(folder), ['notes.txt']);
  });

  it('of deleted tasks stay listed', async (t) => {
    const h = await Harness.start(t);
    const tid = await h.trained();
    const { models, tasks } = h.services;
    const { pid } = tasks.get(tid);
    await models.addExported({ pid, tid, name: 'e', path: join(h.folder, 'out/m') });
    await tasks.delete(tid);
    assert.equal(models.exported().length, 1);
  });
});
