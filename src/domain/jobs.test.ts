import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { JobSpec } from '../compute/jobs.gen.js';
import { DatasetStatus, PredictStatus as P, TaskStatus as T } from './enums.js';
import { OarlockError } from './errors.js';
import { quantLog } from './export-plan.js';
import { Harness } from './testing/harness.js';

const last = <K extends JobSpec['kind']>(h: Harness, kind: K): Extract<JobSpec, { kind: K }> => {
  const spec = h.compute.submitted.filter((entry) => entry.kind === kind).at(-1);
  assert.ok(spec);
  return spec as Extract<JobSpec, { kind: K }>;
};

const PNG = 'iVBORw0KGgo=';

describe('evaluation', () => {
  it('is refused without a checkpoint, for bad arguments and while one runs', async (t) => {
    const h = await Harness.start(t);
    const { jobs } = h.services;
    await assert.rejects(jobs.evaluate('T0009', {}), { code: 'not_found' });
    const fresh = await h.task();
    await assert.rejects(jobs.evaluate(fresh, {}), { code: 'not_ready' });
    await assert.rejects(jobs.stop(fresh, 'evaluate'), { code: 'conflict', context: { state: 'never started' } });
    const tid = await h.trained();
    await assert.rejects(jobs.evaluate(tid, { epoch: 7 }), { code: 'not_ready', hint: 'Saved are: 1, 2.' });
    await assert.rejects(jobs.evaluate(tid, { topk: 0 }), { code: 'invalid_argument' });
    await jobs.evaluate(tid, {});
    await assert.rejects(jobs.evaluate(tid, {}), { code: 'conflict', context: { state: 'XEVALUATING' } });
    await assert.rejects(h.services.training.start(tid), { code: 'conflict' });
    await assert.rejects(h.services.tasks.delete(tid), { code: 'conflict' });
  });

  it('stores the report, and the task is evaluated', async (t) => {
    const h = await Harness.start(t);
    const tid = await h.trained();
    const { jobs, tasks } = h.services;
    await jobs.evaluate(tid, { epoch: 2, topk: 3 });
    const spec = last(h, 'evaluate');
    assert.deepEqual([spec.topk, spec.source.epoch], [3, 2]);
    assert.ok(spec.source.checkpoint.endsWith('/output/epoch_2'));
    assert.equal(tasks.get(tid).status, T.XTRAINDONE);
    h.compute.job(`${tid}/evaluate`).end({ type: 'evaluate', report: { Acc1: 0.5 } });
    await h.until(() => !jobs.isLive(tid, 'evaluate'));
    assert.equal(jobs.get(tid, 'evaluate')?.status, T.XEVALUATED);
    assert.equal(tasks.get(tid).status, T.XEVALUATED);
    const { path, report } = await jobs.report(tid);
    assert.deepEqual(report, { Acc1: 0.5, epoch: 2 });
    rmSync(path);
    assert.equal((await jobs.report(tid)).report, null);
    writeFileSync(path, '{"torn');
    assert.equal((await jobs.report(tid)).report, null);
  });

  it('failed leaves the task as it was, with the reason', async (t) => {
    const h = await Harness.start(t);
    const tid = await h.trained();
    await h.services.jobs.evaluate(tid, {});
    h.fail(`${tid}/evaluate`, 'eval_details.json is damaged.');
    await h.until(() => !h.services.jobs.isLive(tid, 'evaluate'));
    assert.equal(h.services.jobs.get(tid, 'evaluate')?.status, T.XEVALUATEFAIL);
    assert.equal(h.services.jobs.get(tid, 'evaluate')?.message, 'eval_details.json is damaged.');
    assert.equal(h.services.tasks.get(tid).status, T.XTRAINDONE);
    await h.services.jobs.evaluate(tid, {});
    assert.equal(h.services.jobs.get(tid, 'evaluate')?.status, T.XEVALUATING);
  });
});

describe('prediction', () => {
  it('refuses bad pictures and paths, and leaves nothing behind', async (t) => {
    const h = await Harness.start(t);
    const { jobs } = h.services;
    await assert.rejects(jobs.predict(await h.task(), { image_data: PNG }), { code: 'not_ready' });
    const tid = await h.trained();
    const received = join(h.services.tasks.get(tid).path, '.received');
    await assert.rejects(jobs.predict(tid, { image_data: 'no base64 €' }), { code: 'invalid_argument' });
    await assert.rejects(jobs.predict(tid, { image_data: '====' }), { code: 'invalid_argument' });
    await assert.rejects(jobs.predict(tid, { image_data: 'data:image/png;base64,' }), { code: 'invalid_argument' });
    h.compute.calls.inspectImage = () => {
      throw new OarlockError('invalid_argument', 'This is no picture.');
    };
    await assert.rejects(jobs.predict(tid, { image_data: PNG }), { code: 'invalid_argument' });
    assert.deepEqual(readdirSync(received), []);
    await assert.rejects(jobs.predict(tid, { img_list: ['/etc/passwd'] }), { code: 'forbidden_path' });
    await assert.rejects(jobs.predict(tid, { img_list: [h.source] }), { code: 'invalid_argument' });
    await assert.rejects(jobs.predict(tid, { img_list: [join(h.source, 'no.png')] }), {
      code: 'not_found',
      context: { field: 'img_list[0]', path: join(h.source, 'no.png') },
    });
    assert.equal(jobs.get(tid, 'predict'), undefined);
  });

  it('refuses a picture that is too large', async (t) => {
    const h = await Harness.start(t, { maxImageBytes: 1000 });
    const tid = await h.trained();
    const image_data = Buffer.alloc(5000).toString('base64');
    await assert.rejects(h.services.jobs.predict(tid, { image_data }), { code: 'resource_exhausted' });
  });

  it('draws one picture to a fixed place', async (t) => {
    const h = await Harness.start(t);
    const tid = await h.trained();
    const { jobs, tasks } = h.services;
    const folder = join(tasks.get(tid).path, 'visualized_test_results');
    mkdirSync(folder);
    writeFileSync(join(folder, 'old.png'), '');
    const { path } = await jobs.predict(tid, { image_data: `data:image/png;base64,\n ${PNG}\n` });
    assert.equal(path, join(folder, 'predict_result.png'));
    assert.deepEqual(readdirSync(folder), []);
    const spec = last(h, 'predict');
    const source = spec.images[0]?.path ?? '';
    assert.deepEqual(spec.images, [{ from: 'file', path: source, output: 'predict_result.png' }]);
    assert.ok(existsSync(source));
    assert.deepEqual([jobs.get(tid, 'predict')?.status, jobs.get(tid, 'predict')?.total], [P.XPRESTART, 1]);
    const item = { source, picture: path, result: [{ category: 'a', category_id: 0, score: 1 }], error: null };
    h.compute.job(`${tid}/predict`).end({ type: 'predict', items: [item] });
    await h.until(() => !jobs.isLive(tid, 'predict'));
    const record = jobs.get(tid, 'predict');
    assert.deepEqual([record?.status, record?.done, record?.total], [P.XPREDONE, 1, 1]);
    assert.deepEqual(record?.result, [{ ...item, source: 'image_data' }]);
    assert.ok(!existsSync(source), 'what was received is removed');
    assert.equal(tasks.get(tid).status, T.XTRAINDONE);
  });

  it('a second call replaces the first', async (t) => {
    const h = await Harness.start(t);
    const tid = await h.trained();
    await h.services.jobs.predict(tid, { image_data: PNG });
    const first = h.compute.job(`${tid}/predict`);
    await Promise.all([
      h.services.jobs.predict(tid, { image_data: PNG }),
      h.services.jobs.predict(tid, { image_data: PNG }),
    ]);
    assert.equal(first.stops, 1);
    assert.equal(h.services.jobs.get(tid, 'predict')?.status, P.XPRESTART);
    assert.equal(h.compute.submitted.filter((spec) => spec.kind === 'predict').length, 3);
    await h.services.jobs.stop(tid, 'predict');
    assert.equal(h.services.jobs.get(tid, 'predict')?.status, P.XPREFAIL);
    assert.equal(h.services.jobs.get(tid, 'predict')?.message, 'The prediction was stopped.');
  });

  it('takes the test split when no picture is named, and counts', async (t) => {
    const h = await Harness.start(t);
    const tid = await h.trained();
    const { jobs, datasets } = h.services;
    await jobs.predict(tid, { img_list: [] });
    const root = datasets.get('D0001').path;
    assert.deepEqual(
      last(h, 'predict').images.map((image) => [image.path.slice(root.length + 1), image.output]),
      [
        ['a/1.png', 'a_1.png'],
        ['b</1.png', 'b<_1.png'],
        ['z z/2.x.png', 'z z_2.x.png'],
      ],
    );
    h.compute.job(`${tid}/predict`).event({ type: 'progress', stage: 'predicting', done: 2, total: 3 });
    assert.deepEqual([jobs.get(tid, 'predict')?.done, jobs.get(tid, 'predict')?.total], [2, 3]);
    const bad = { source: 'x', picture: null, result: null, error: 'x is damaged.' };
    h.compute.job(`${tid}/predict`).end({ type: 'predict', items: [{ ...bad, picture: '/p', error: null }, bad] });
    await h.until(() => !jobs.isLive(tid, 'predict'));
    assert.equal(jobs.get(tid, 'predict')?.status, P.XPREDONE);
    assert.match(jobs.get(tid, 'predict')?.message ?? '', /1 of 2 pictures could not be read.*damaged/);
    await jobs.predict(tid, {});
    h.compute.job(`${tid}/predict`).end({ type: 'predict', items: [bad] });
    await h.until(() => !jobs.isLive(tid, 'predict'));
    assert.deepEqual(
      [jobs.get(tid, 'predict')?.status, jobs.get(tid, 'predict')?.message],
      [P.XPREFAIL, 'x is damaged.'],
    );
    rmSync(join(root, 'test_list.txt'));
    await assert.rejects(jobs.predict(tid, {}), { code: 'not_ready' });
  });

  it('gives pictures of the same name different results', async (t) => {
    const h = await Harness.start(t);
    const tid = await h.trained();
    const list = ['x/a/1.png', 'y/a/1.jpg', 'a/1.png'].map((name) => join(h.source, name));
    for (const path of list) {
      mkdirSync(join(path, '..'), { recursive: true });
      writeFileSync(path, '');
    }
    await h.services.jobs.predict(tid, { img_list: list });
    assert.deepEqual(
      last(h, 'predict').images.map((image) => image.output),
      ['a_1.png', 'a_1_2.png', 'a_1_3.png'],
    );
  });
});

describe('export', () => {
  it('is refused for places it must not write to, and for what is not there yet', async (t) => {
    const h = await Harness.start(t);
    const tid = await h.trained();
    const { jobs, tasks, config } = h.services;
    const { path } = tasks.get(tid);
    await assert.rejects(jobs.export(tid, { save_dir: '/etc/x' }), { code: 'forbidden_path' });
    await assert.rejects(jobs.export(tid, { save_dir: '' }), { code: 'invalid_argument' });
    for (const save_dir of [config.workspace, join(config.workspace, 'datasets/D0001'), join(path, 'output')]) {
      await assert.rejects(jobs.export(tid, { save_dir }), { code: 'invalid_argument' }, save_dir);
    }
    writeFileSync(join(path, 'file'), '');
    await assert.rejects(jobs.export(tid, { save_dir: join(path, 'file') }), { code: 'invalid_argument' });
    await assert.rejects(jobs.export(await h.task('P0001'), { save_dir: join(path, 'x') }), { code: 'not_ready' });
    assert.equal(jobs.get(tid, 'export'), undefined);
    assert.equal(tasks.get(tid).status, T.XTRAINDONE);
  });

  it('is told the data, the method and the folders of a quantization', async (t) => {
    const h = await Harness.start(t);
    const tid = await h.trained();
    const { jobs, tasks } = h.services;
    const { path, pid } = tasks.get(tid);
    const save_dir = join(path, 'export_model');
    await jobs.export(tid, { save_dir, quant: true, quant_method: 'entropy' });
    const spec = last(h, 'export');
    assert.deepEqual(spec.quant, { method: 'entropy', images: 256 });
    assert.deepEqual(spec.dataset, { format: 'image_folder', root: h.services.datasets.get('D0001').path });
    assert.equal(spec.log_dir, join(path, 'logs/export'));
    const log = () => quantLog(tasks.get(tid), jobs.get(tid, 'export'));
    assert.deepEqual(log().stage, null);
    for (const [stage, done, total, fraction] of [
      ['exporting', 1, 3, null],
      ['Batch', 3, 10, 0.1],
      ['Weight', 5, 5, 13 / 30],
      ['Activation', 1, 2, 21 / 30],
      ['Finish', 1, 1, 1],
      ['exporting', 2, 3, 1],
      ['measuring', 1, 9, 1],
    ] as const) {
      h.compute.job(`${tid}/export`).event({ type: 'progress', stage, done, total });
      const { running_duration } = log();
      assert.ok(running_duration === fraction || Math.abs((running_duration ?? 9) - (fraction ?? 0)) < 1e-9, stage);
    }
    const figures = (acc1: number) => ({ metrics: { acc1, acc2: 1 }, bytes: 9, latency_ms: 0.5 });
    const measured = {
      runtime: 'onnxruntime 1',
      threads: 1,
      images: 7,
      model: figures(0.9),
      fp32: figures(0.95),
      difference: 0.5,
    };
    const notes = ['One thing.'];
    h.compute
      .job(`${tid}/export`)
      .end({ type: 'export', path: save_dir, parameters: 1, macs: 1, notes, measured, calibrated: 60 });
    await h.until(() => !jobs.isLive(tid, 'export'));
    const record = jobs.get(tid, 'export');
    assert.match(record?.message ?? '', /is exported\. One thing\. onnxruntime's probabilities differ .* 0\.50\.$/);
    const result = { before: { acc1: 0.95, acc2: 1 }, after: { acc1: 0.9, acc2: 1 } };
    assert.deepEqual(JSON.parse(readFileSync(join(path, 'logs/export/quant_result.json'), 'utf8')), result);
    assert.match(readFileSync(join(path, 'logs/export/out.log'), 'utf8'), /\[EVAL\] before, acc1=0\.950000, acc2=1/);
    // Calibration needs training images.
    await h.services.store.change((tx) => {
      const dataset = tx.get('dataset', 'D0001');
      if (dataset !== undefined) tx.put('dataset', { ...dataset, status: DatasetStatus.XCOPYDONE });
    });
    await assert.rejects(jobs.export(tid, { save_dir, quant: true }), {
      code: 'not_ready',
      message: /D0001 is not split/,
    });
    await h.services.store.change((tx) => {
      const project = tx.get('project', pid);
      if (project !== undefined) tx.put('project', { ...project, did: '' });
    });
    await assert.rejects(jobs.export(tid, { save_dir, quant: true }), { code: 'not_ready', message: /has no dataset/ });
    await jobs.export(tid, { save_dir });
  });

  it('takes the task with it, and back when it fails or is stopped', async (t) => {
    const h = await Harness.start(t);
    const tid = await h.trained();
    const { jobs, tasks } = h.services;
    const save_dir = join(tasks.get(tid).path, 'export_model');
    await jobs.export(tid, { save_dir });
    assert.ok(existsSync(save_dir));
    assert.equal(tasks.get(tid).status, T.XEXPORTING);
    await assert.rejects(jobs.export(tid, { save_dir }), { code: 'conflict' });
    await assert.rejects(h.services.training.start(tid), { code: 'conflict', context: { state: 'XEXPORTING' } });
    h.fail(`${tid}/export`, 'no space');
    await h.until(() => !jobs.isLive(tid, 'export'));
    assert.deepEqual([tasks.get(tid).status, jobs.get(tid, 'export')?.status], [T.XTRAINDONE, T.XEXPORTFAIL]);
    await jobs.export(tid, { save_dir });
    await jobs.stop(tid, 'export');
    assert.deepEqual([tasks.get(tid).status, jobs.get(tid, 'export')?.status], [T.XTRAINDONE, T.XEXPORTFAIL]);
    await jobs.export(tid, { save_dir });
    await jobs.evaluate(tid, {});
    h.compute.job(`${tid}/evaluate`).end({ type: 'evaluate', report: {} });
    await h.until(() => !jobs.isLive(tid, 'evaluate'));
    assert.equal(tasks.get(tid).status, T.XEXPORTING);
    assert.equal(tasks.get(tid).settled, T.XEVALUATED);
    h.compute.job(`${tid}/export`).end({ type: 'export', path: save_dir, parameters: 1, macs: 2 });
    await h.until(() => !jobs.isLive(tid, 'export'));
    assert.deepEqual([tasks.get(tid).status, jobs.get(tid, 'export')?.status], [T.XEXPORTED, T.XEXPORTED]);
  });
});

it('after a crash side jobs have failed with a reason and the task is where it was', async (t) => {
  const h = await Harness.start(t);
  const tid = await h.trained();
  const { jobs } = h.services;
  await jobs.evaluate(tid, {});
  await jobs.predict(tid, { image_data: PNG });
  await jobs.export(tid, { save_dir: join(h.folder, 'out/x') });
  await h.crash();
  const now = h.services.jobs;
  assert.deepEqual(
    (['evaluate', 'predict', 'export'] as const).map((job) => now.get(tid, job)?.status),
    [T.XEVALUATEFAIL, P.XPREFAIL, T.XEXPORTFAIL],
  );
  assert.match(now.get(tid, 'export')?.message ?? '', /server ended/);
  assert.equal(h.services.tasks.get(tid).status, T.XTRAINDONE);
  await now.evaluate(tid, {});
});
