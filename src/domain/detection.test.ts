/** Detection and instance segmentation tasks on the server: what their jobs are told and what clients read of them. */
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { JobSpec } from '../compute/jobs.gen.js';
import { DatasetStatus, TaskStatus as T } from './enums.js';
import { Harness } from './testing/harness.js';

type Detects = 'detection' | 'instance_segmentation';

const last = <K extends JobSpec['kind']>(h: Harness, kind: K): Extract<JobSpec, { kind: K }> => {
  const spec = h.compute.submitted.filter((entry) => entry.kind === kind).at(-1);
  assert.ok(spec);
  return spec as Extract<JobSpec, { kind: K }>;
};

/** A project bound to a split set, as an import leaves it. */
async function project(h: Harness, type: Detects): Promise<{ pid: string; root: string }> {
  const { datasets, projects, workspace, store } = h.services;
  const set = await datasets.create({ name: 's', desc: '', type });
  mkdirSync(set.path, { recursive: true });
  const details = { test_files: ['JPEGImages/a.jpg'], file_info: { 'JPEGImages/a.jpg': 'Annotations/a.npy' } };
  writeFileSync(join(set.path, 'statis.json'), JSON.stringify(details));
  writeFileSync(join(set.path, 'test_list.txt'), 'JPEGImages/b 1.jpg Annotations/b 1.xml\n');
  const counts = { labels: 2, train: 20, val: 5, test: 1 };
  await store.change((tx) => tx.put('dataset', { ...set, status: DatasetStatus.XSPLITED, counts }));
  const { id: pid } = await projects.create({ name: 's', desc: '', type });
  await workspace.setAttributes('project', pid, { did: set.id });
  return { pid, root: set.path };
}

async function train(h: Harness, tid: string, metrics: Record<string, number>): Promise<void> {
  const { tasks, training } = h.services;
  await training.start(tid);
  const job = h.compute.job(`${tid}/train`);
  job.event({ type: 'started', device: 'cpu', precision: 'fp32', notes: [] });
  job.event({ type: 'eval', epoch: 1, metrics });
  job.event({ type: 'saved', epoch: 1, path: h.checkpoint(tid, 'epoch_1'), best: true });
  h.checkpoint(tid, 'best_model');
  job.end({ type: 'train', stopped: false, completed_epochs: 1, best_epoch: 1, best_metrics: metrics });
  await h.until(() => tasks.get(tid).status === T.XTRAINDONE);
}

describe('a detection task', () => {
  it('is trained, evaluated and predicted as such', async (t) => {
    const h = await Harness.start(t);
    const { tasks, training, jobs, models } = h.services;
    const { pid, root } = await project(h, 'detection');
    const { id: tid } = await tasks.create({
      pid,
      train: { backbone: 'MobileNetV1', num_epochs: 1, image_shape: [96] },
    });
    await train(h, tid, { bbox_map: 61.5 });
    const { dataset, params } = last(h, 'train');
    assert.deepEqual(dataset, { format: 'voc', root });
    assert.ok(params.task_type === 'detection');
    assert.deepEqual([params.model, params.backbone, params.image_shape], ['YOLOv3', 'MobileNetV1', [96, 96]]);
    assert.deepEqual(training.log(tid).eval_metrics, { Epoch: 1, bbox_map: 61.5 });
    assert.deepEqual(await training.bestMetric(tid), { bbox_map: 61.5 });
    assert.equal((await training.allEpochs(tid)).key, 'bbox_map');

    for (const field of ['score_thresh', 'overlap_thresh'])
      await assert.rejects(jobs.evaluate(tid, { [field]: 1.5 }), { code: 'invalid_argument', context: { field } });
    await jobs.evaluate(tid, { score_thresh: 0.25, overlap_thresh: null });
    const { task_type, score_thresh, overlap_thresh } = last(h, 'evaluate');
    assert.deepEqual([task_type, score_thresh, overlap_thresh], ['detection', 0.25, undefined]);
    h.compute.job(`${tid}/evaluate`).end({ type: 'evaluate', report: { mAP: 0.8 } });
    await h.until(() => tasks.get(tid).status === T.XEVALUATED);

    await jobs.predict(tid, { score_thresh: 0.1 });
    const predicted = last(h, 'predict');
    assert.deepEqual([predicted.task_type, predicted.score_threshold], ['detection', 0.1]);
    const truth = join(root, 'Annotations/b 1.xml');
    const path = join(root, 'JPEGImages/b 1.jpg');
    assert.deepEqual(predicted.images, [{ from: 'file', path, output: 'b 1.png', truth }]);
    await h.services.pruning.analyse(tid);
    assert.equal(last(h, 'sensitivity').dataset.format, 'voc');
    const { model } = await models.addPretrained({ pid, tid, name: 'p', source_path: h.checkpoint(tid, 'epoch_1') });
    assert.equal(model, 'YOLOv3-MobileNetV1', 'a feature pyramid is told of two-stage detectors only');
  });
});

describe('an instance segmentation task', () => {
  it('is trained, evaluated and predicted as such', async (t) => {
    const h = await Harness.start(t);
    const { tasks, training, jobs } = h.services;
    const { pid, root } = await project(h, 'instance_segmentation');
    const { id: tid } = await tasks.create({
      pid,
      train: { backbone: 'ResNet18', num_epochs: 1, image_shape: [96, 128] },
    });
    await train(h, tid, { bbox_mmap: 0.5, segm_mmap: 0.4 });
    const { dataset, params } = last(h, 'train');
    assert.deepEqual(dataset, { format: 'coco', root });
    assert.ok(params.task_type === 'instance_segmentation');
    assert.deepEqual([params.model, params.backbone, params.with_fpn], ['MaskRCNN', 'ResNet18', true]);
    assert.deepEqual(await training.bestMetric(tid), { bbox_mmap: 0.5 });

    await jobs.evaluate(tid, { overlap_thresh: 0.6 });
    assert.equal(last(h, 'evaluate').overlap_thresh, 0.6);
    h.compute.job(`${tid}/evaluate`).end({ type: 'evaluate', report: { BBox_mAP: 0.8 } });
    await h.until(() => tasks.get(tid).status === T.XEVALUATED);
    await jobs.predict(tid, {});
    const truth = join(root, 'Annotations/a.npy');
    const path = join(root, 'JPEGImages/a.jpg');
    assert.deepEqual(last(h, 'predict').images, [{ from: 'file', path, output: 'a.png', truth }]);
    assert.equal(last(h, 'predict').score_threshold, 0.5);
  });
});
