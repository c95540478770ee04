/** Segmentation tasks on the server: what their jobs are told and what clients read of them. */
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { JobSpec } from '../compute/jobs.gen.js';
import { DatasetStatus, TaskStatus as T } from './enums.js';
import { Harness } from './testing/harness.js';

const last = <K extends JobSpec['kind']>(h: Harness, kind: K): Extract<JobSpec, { kind: K }> => {
  const spec = h.compute.submitted.filter((entry) => entry.kind === kind).at(-1);
  assert.ok(spec);
  return spec as Extract<JobSpec, { kind: K }>;
};

/** A project bound to a split set, as an import leaves it. */
async function project(h: Harness, remote = false): Promise<{ pid: string; root: string }> {
  const { datasets, projects, workspace, store } = h.services;
  const mark = remote ? { remote } : {};
  const set = await datasets.create({ name: 's', desc: '', type: 'segmentation', ...mark });
  mkdirSync(set.path, { recursive: true });
  writeFileSync(
    join(set.path, 'test_list.txt'),
    'JPEGImages/a.jpg Annotations/a.png\nJPEGImages/b 1.png Annotations/b 1.png\n',
  );
  const counts = { labels: 2, train: 20, val: 5, test: 2 };
  await store.change((tx) => tx.put('dataset', { ...set, status: DatasetStatus.XSPLITED, counts }));
  const { id: pid } = await projects.create({ name: 's', desc: '', type: 'segmentation', ...mark });
  await workspace.setAttributes('project', pid, { did: set.id });
  return { pid, root: set.path };
}

describe('a segmentation task', () => {
  it('is trained, evaluated, predicted and exported as such', async (t) => {
    const h = await Harness.start(t);
    const { tasks, training, jobs } = h.services;
    const { pid, root } = await project(h);
    const { id: tid } = await tasks.create({ pid, train: { model: 'UNet', num_epochs: 1, image_shape: [64, 64] } });
    await training.start(tid);
    const spec = last(h, 'train');
    assert.deepEqual(spec.dataset, { format: 'segmentation_pairs', root });
    assert.deepEqual([spec.params.task_type, spec.params.model], ['segmentation', 'UNet']);
    const job = h.compute.job(`${tid}/train`);
    job.event({ type: 'started', device: 'cpu', precision: 'fp32', notes: [] });
    const metrics = { miou: 0.8, oacc: 0.95, kappa: 0.7 };
    job.event({ type: 'eval', epoch: 1, metrics });
    job.event({ type: 'saved', epoch: 1, path: h.checkpoint(tid, 'epoch_1'), best: true });
    h.checkpoint(tid, 'best_model');
    job.end({ type: 'train', stopped: false, completed_epochs: 1, best_epoch: 1, best_metrics: metrics });
    await h.until(() => tasks.get(tid).status === T.XTRAINDONE);
    assert.deepEqual(training.log(tid).eval_metrics, { Epoch: 1, ...metrics });
    assert.deepEqual(await training.bestMetric(tid), { miou: 0.8 });
    assert.equal((await training.allEpochs(tid)).key, 'miou');

    await jobs.evaluate(tid, {});
    assert.equal(last(h, 'evaluate').task_type, 'segmentation');
    h.compute.job(`${tid}/evaluate`).end({ type: 'evaluate', report: { Mean_IoU: 0.8 } });
    await h.until(() => tasks.get(tid).status === T.XEVALUATED);

    await jobs.predict(tid, {});
    assert.equal(last(h, 'predict').task_type, 'segmentation');
    assert.deepEqual(
      last(h, 'predict').images,
      ['a.jpg', 'b 1.png'].map((name) => {
        const stem = name.slice(0, name.lastIndexOf('.'));
        const path = join(root, 'JPEGImages', name);
        return { from: 'file', path, output: `${stem}.png`, truth: join(root, `Annotations/${stem}.png`) };
      }),
    );
    await jobs.export(tid, { save_dir: join(h.folder, 'out/x'), quant: true });
    const exported = last(h, 'export');
    assert.equal(exported.task_type, 'segmentation');
    assert.deepEqual(exported.dataset, { format: 'segmentation_pairs', root });
    assert.deepEqual(exported.quant, { method: 'percentile', images: 256 });
    h.fail(`${tid}/export`);
    await h.until(() => tasks.get(tid).status === T.XEVALUATED);
    await h.services.pruning.analyse(tid);
    const analysis = last(h, 'sensitivity');
    assert.deepEqual([analysis.task_type, analysis.dataset.format], ['segmentation', 'segmentation_pairs']);
    assert.equal(analysis.batch_size, tasks.params(tid).batch_size, 'maps are large');
  });

  it('of remote sensing needs the measures of its channels', async (t) => {
    const h = await Harness.start(t);
    const { tasks, training } = h.services;
    const { pid, root } = await project(h, true);
    const { id: early } = await tasks.create({ pid });
    await assert.rejects(training.start(early), { code: 'not_ready', message: /channels\.json/ });
    const file = {
      channels: 2,
      clip_min: [0, 100],
      clip_max: [200, 100],
      mean: [50, 100],
      std: [20, 0],
      kind: 'uint16',
    };
    writeFileSync(join(root, 'channels.json'), JSON.stringify({ ...file, std: [1] }));
    await assert.rejects(training.start(early), { code: 'not_ready' });
    writeFileSync(join(root, 'channels.json'), JSON.stringify(file));
    const { id: tid } = await tasks.create({ pid });
    assert.deepEqual((await tasks.suggest(pid)).image_mean, [0.25, 0]);
    await training.start(tid);
    const { params } = last(h, 'train');
    assert.ok(params.task_type === 'segmentation');
    assert.deepEqual(
      [params.min_val, params.max_val, params.image_mean],
      [
        [0, 100],
        [200, 101],
        [0.25, 0],
      ],
    );
    assert.ok(
      params.image_std.every((value) => value > 0),
      'never divided by 0',
    );
  });
});
