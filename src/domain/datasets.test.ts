import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { DatasetStatus as D } from './enums.js';
import { failedOutcome } from './testing/compute.js';
import { DETAILS, Harness } from './testing/harness.js';

const unknown = { code: 'not_found' };

describe('datasets', () => {
  it('refuses unknown ids everywhere', async (t) => {
    const { services } = await Harness.start(t);
    const { datasets } = services;
    assert.throws(() => datasets.get('D0009'), unknown);
    for (const call of [
      datasets.import('D0009', '/'),
      datasets.split('D0009', 0.2, 0.1),
      datasets.details('D0009'),
      datasets.detailsJson('D0009'),
      datasets.delete('D0009'),
    ]) {
      await assert.rejects(call, unknown);
    }
  });

  it('refuses to import what is no folder, lies outside, or has annotations of no use', async (t) => {
    const h = await Harness.start(t);
    const { datasets } = h.services;
    const { id } = await datasets.create({ name: 'a', desc: '', type: 'classification' });
    writeFileSync(join(h.source, 'file'), '');
    symlinkSync('/etc', join(h.source, 'link'));
    await assert.rejects(datasets.import(id, join(h.source, 'file')), { code: 'invalid_argument' });
    await assert.rejects(datasets.import(id, join(h.source, 'missing')), { code: 'not_found' });
    await assert.rejects(datasets.import(id, '/etc'), { code: 'forbidden_path' });
    await assert.rejects(datasets.import(id, join(h.source, 'link')), { code: 'forbidden_path' });
    assert.equal(datasets.get(id).status, D.XEMPTY);
    await assert.rejects(datasets.import(id, h.source, { format: 'labelme' }), {
      code: 'invalid_argument',
      context: { field: 'format' },
    });
    const other = await datasets.create({ name: 'a', desc: '', type: 'detection' });
    await assert.rejects(datasets.split(other.id, 0.2, 0.1), { code: 'conflict' });
  });

  it('goes through checking and copying with progress', async (t) => {
    const h = await Harness.start(t);
    const { datasets } = h.services;
    const { id, path } = await datasets.create({ name: 'a', desc: '', type: 'classification' });
    assert.ok(existsSync(path));
    const { done } = await datasets.import(id, h.source);
    assert.equal(datasets.get(id).status, D.XCHECKING);
    await assert.rejects(datasets.import(id, h.source), { code: 'conflict', context: { state: 'XCHECKING' } });
    await assert.rejects(datasets.split(id, 0.2, 0.1), { code: 'conflict' });
    await assert.rejects(datasets.delete(id), { code: 'conflict' });
    const job = h.compute.job(`${id}/import`);
    job.event({ type: 'progress', stage: 'checking', done: 3, total: 12 });
    assert.equal(datasets.message(datasets.get(id)), 'Checked 3 of 12 files.');
    job.event({ type: 'progress', stage: 'copying', done: 3, total: 12 });
    await h.until(() => datasets.get(id).status === D.XCOPYING);
    assert.deepEqual(datasets.message(datasets.get(id)), { pid: process.pid, percent: 0.25 });
    assert.equal(await datasets.details(id), null);
    h.writeDetails(path);
    job.end({ type: 'import', details: { ...DETAILS }, split: false, files: 2, warnings: ['1 file was ignored'] });
    await done;
    assert.equal(datasets.get(id).status, D.XCOPYDONE);
    assert.equal(datasets.message(datasets.get(id)), '1 file was ignored');
    assert.deepEqual(await datasets.details(id), DETAILS);
    const states = h.events
      .filter((event) => event.type === 'dataset')
      .map((event) => event.data as { status?: number });
    assert.deepEqual([...new Set(states.map((data) => data.status))], [D.XEMPTY, D.XCHECKING, D.XCOPYING, D.XCOPYDONE]);
  });

  it('goes straight to split when the source was, also when no copying was reported', async (t) => {
    const h = await Harness.start(t);
    const { datasets } = h.services;
    const { id } = await datasets.create({ name: 'a', desc: '', type: 'classification' });
    const { done } = await datasets.import(id, h.source);
    const details = { ...DETAILS, train_files: ['a/1.png'], val_files: ['b</2.png'] };
    h.compute.job(`${id}/import`).end({ type: 'import', details, split: true, files: 2, warnings: [] });
    await done;
    assert.equal(datasets.get(id).status, D.XSPLITED);
    assert.deepEqual(datasets.get(id).counts, { labels: 2, train: 1, val: 1, test: 0 });
  });

  it('tells why an import failed, and can be imported again', async (t) => {
    const h = await Harness.start(t);
    const { datasets } = h.services;
    const { id } = await datasets.create({ name: 'a', desc: '', type: 'classification' });
    const first = await datasets.import(id, h.source);
    h.compute.job(`${id}/import`).end({
      ...failedOutcome('invalid_data', 'val_list.txt, line 3: no such picture; correct the list'),
      context: { stage: 'checking', problem_count: 1 },
    } as never);
    await first.done;
    assert.equal(datasets.get(id).status, D.XCHECKFAIL);
    assert.equal(datasets.get(id).message, 'val_list.txt, line 3: no such picture; correct the list');
    const second = await datasets.import(id, h.source);
    h.compute.job(`${id}/import`).event({ type: 'progress', stage: 'copying', done: 1, total: 2 });
    h.fail(`${id}/import`, 'disk full');
    await second.done;
    assert.equal(datasets.get(id).status, D.XCOPYFAIL);
    const third = await datasets.import(id, h.source);
    await datasets.cancelImport(id, 'The demo was stopped.');
    await third.done;
    assert.equal(datasets.get(id).message, 'The demo was stopped.');
  });

  it('refuses impossible splits', async (t) => {
    const h = await Harness.start(t);
    const did = await h.dataset(false);
    const { datasets } = h.services;
    for (const [val, test] of [
      [-0.1, 0.1],
      [0.2, -0.1],
      [0.5, 0.5],
      [0, 0.1],
      [1, 0],
      [Number.NaN, 0],
      [0.2, Number.POSITIVE_INFINITY],
      [0.9, 0.2],
    ] as const) {
      await assert.rejects(datasets.split(did, val, test), { code: 'invalid_argument' }, `${val} ${test}`);
    }
    assert.equal(datasets.get(did).status, D.XCOPYDONE);
  });

  it('splits, and keeps the old state when that fails', async (t) => {
    const h = await Harness.start(t);
    const did = await h.dataset();
    const { datasets } = h.services;
    assert.equal(datasets.get(did).status, D.XSPLITED);
    assert.deepEqual(datasets.get(did).counts, { labels: 2, train: 60, val: 20, test: 3 });
    assert.deepEqual((await datasets.details(did))?.train_files, ['a/1.png']);
    h.compute.calls.splitDataset = () => {
      throw new Error('no');
    };
    await assert.rejects(datasets.split(did, 0.3, 0.1));
    assert.equal(datasets.get(did).status, D.XSPLITED);
  });

  it('refuses to change data that a task trains on', async (t) => {
    const h = await Harness.start(t);
    const tid = await h.task();
    await h.services.training.start(tid);
    await assert.rejects(h.services.datasets.split('D0001', 0.2, 0.1), { code: 'conflict' });
    await assert.rejects(h.services.datasets.import('D0001', h.source), {
      code: 'conflict',
      context: { state: 'XTRAINING' },
    });
  });

  it('deletes only what no project uses, and nothing but its own folder', async (t) => {
    const h = await Harness.start(t);
    const pid = await h.project();
    const { datasets, projects, config } = h.services;
    await assert.rejects(datasets.delete('D0001'), /1 project \(P0001\)/);
    await projects.delete(pid);
    const { path } = datasets.get('D0001');
    rmSync(path, { recursive: true });
    mkdirSync(join(h.folder, 'precious'));
    writeFileSync(join(h.folder, 'precious/file'), 'x');
    symlinkSync(join(h.folder, 'precious'), path);
    await datasets.delete('D0001');
    assert.ok(!existsSync(path));
    assert.ok(existsSync(join(h.folder, 'precious/file')));
    assert.throws(() => datasets.get('D0001'), unknown);
    const { id } = await datasets.create({ name: 'b', desc: '', type: 'classification' });
    assert.equal(id, 'D0002');
    const running = await datasets.import(id, h.source);
    await datasets.delete(id, { force: true });
    await running.done;
    assert.throws(() => datasets.get(id), unknown);
    await h.until(() => readdirSync(join(config.workspace, '.trash')).length === 0);
    assert.ok(existsSync(h.source));
  });

  it('promise 2: a record whose path leads elsewhere deletes nothing there', async (t) => {
    const h = await Harness.start(t);
    const { datasets, store } = h.services;
    const { id } = await datasets.create({ name: 'a', desc: '', type: 'classification' });
    const canary = join(h.folder, 'out/canary');
    for (const path of [canary, h.folder, h.services.config.workspace, join(h.services.config.workspace, 'datasets')]) {
      mkdirSync(canary, { recursive: true });
      await store.change((tx) => tx.put('dataset', { ...datasets.get(id), id: 'D0042', path }));
      await datasets.delete('D0042');
      assert.ok(existsSync(path), path);
    }
  });

  it('reads the folder again when the statistics are lost', async (t) => {
    const h = await Harness.start(t);
    const did = await h.dataset();
    const { datasets, store } = h.services;
    const record = datasets.get(did);
    rmSync(join(record.path, 'statis.json'));
    await store.change((tx) => tx.put('dataset', { ...record, content: 99 }));
    assert.equal(await datasets.detailsJson(did), null);
    assert.equal(datasets.get(did).status, D.XCHECKING);
    const spec = h.compute.job(`${did}/import`).spec;
    assert.ok(spec.kind === 'import' && spec.source === record.path && spec.dest === record.path);
    h.fail(`${did}/import`);
  });

  it('sends details as bytes that the page can run and paste', async (t) => {
    const h = await Harness.start(t);
    const did = await h.dataset();
    const { datasets } = h.services;
    const json = await datasets.detailsJson(did);
    assert.equal(await datasets.detailsJson(did), json);
    assert.ok(!json?.includes('<'));
    assert.deepEqual(JSON.parse(String(json)).labels, ['a', 'b<']);
  });

  it('goes on with interrupted imports after a crash, or says why not', async (t) => {
    const h = await Harness.start(t);
    const ids: string[] = [];
    for (const stage of ['checking', 'copying', 'copying']) {
      const { id } = await h.services.datasets.create({ name: stage, desc: '', type: 'classification' });
      await h.services.datasets.import(id, h.source);
      h.compute.job(`${id}/import`).event({ type: 'progress', stage, done: 1, total: 2 });
      ids.push(id);
    }
    await h.until(() => h.services.datasets.get(ids[2] as string).status === D.XCOPYING);
    const { store } = h.services;
    await store.change((tx) => {
      const record = store.get('dataset', ids[2] as string);
      if (record) tx.put('dataset', { ...record, source: '/gone' });
    });
    await h.crash();
    const { datasets } = h.services;
    await h.until(() => datasets.get(ids[2] as string).status === D.XCOPYFAIL);
    assert.match(datasets.get(ids[2] as string).message, /no longer there/);
    for (const id of ids.slice(0, 2)) {
      await h.until(() => h.compute.jobs.has(`${id}/import`));
      assert.equal(datasets.get(id).status, D.XCHECKING);
    }
  });
});
