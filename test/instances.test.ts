/** The whole job of an instance segmentation task over HTTP: shapes and digits composed onto photographs, masks exact by construction. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { cocoFolder, OBJECTS, objectsOf } from './lib/objects.js';
import { readPng } from './lib/pictures.js';
import { type SceneSet, scene, scenePng } from './lib/scenes.js';
import { type Json, root, TestServer } from './lib/server.js';

const photograph = readPng(join(root, 'test/photographs/chelsea.png'));
const scenes: SceneSet = {
  ...{ side: 80, train: 12, heldOut: 4 },
  photographs: { train: [photograph], heldOut: [photograph] },
};

describe('instance segmentation of composed scenes, over HTTP', { concurrency: false }, () => {
  let server: TestServer;
  let did = '';
  let pid = '';
  let tid = '';
  let dir = '';
  const ended = (a: Json): boolean => a.task_status !== 3;

  before(async () => {
    server = await TestServer.start({ threads: 0 });
  });
  after(() => server.remove());

  it('imports, splits and describes the set', async () => {
    ({ did } = await server.ok('POST', '/dataset', { name: 's', desc: '', dataset_type: 'instance_segmentation' }));
    await server.ok('PUT', '/dataset', { did, path: cocoFolder(scenes, join(server.folder, 'scenes')) });
    const imported = await server.until(60, 'GET', '/dataset', { did }, (a) => ![1, 3].includes(a.dataset_status));
    assert.equal(imported.dataset_status, 4, JSON.stringify(imported).slice(0, 2000));
    await server.ok('PUT', '/dataset/split', { did, val_split: 0.25, test_split: 0.125, seed: 3 });
    const { details } = await server.ok('GET', '/dataset/details', { did });
    assert.deepEqual(
      [details.train_files.length, details.val_files.length, details.test_files.length, details.labels],
      [10, 4, 2, [...OBJECTS].sort()],
    );
  });

  it('trains, is stopped in the middle and goes on', async () => {
    ({ pid } = await server.ok('POST', '/project', { name: 's', desc: '', project_type: 'instance_segmentation' }));
    await server.ok('PUT', '/workspace', { struct: 'project', id: pid, attr_dict: { did } });
    const { train } = await server.ok('GET', '/project/task/params', { pid });
    assert.deepEqual([train.model, train.with_fpn], ['MaskRCNN', true]);
    const own = { backbone: 'ResNet18', batch_size: 2, num_epochs: 2, image_shape: [64, 96], learning_rate: 0.002 };
    const more = { warmup_steps: 2, lr_decay_epochs: [2], save_interval_epochs: 1, pretrain_weights: null };
    ({ tid } = await server.ok('POST', '/project/task', { pid, train: { ...train, ...own, ...more } }));
    ({ path: dir } = (await server.ok('GET', '/workspace', { struct: 'task', id: tid, attr_list: ['path'] })).attr);
    await server.ok('POST', '/project/task/train', { tid });
    const log = { tid, type: 'train' };
    const { train_log } = await server.until(
      120,
      'GET',
      '/project/task/metrics',
      log,
      (a) => a.train_log.train_metrics,
    );
    assert.deepEqual(
      Object.keys(train_log.train_metrics).sort(),
      [
        ...['Epoch', 'Step', 'loss', 'lr'],
        ...['loss_rpn_cls', 'loss_rpn_reg', 'loss_bbox_cls', 'loss_bbox_reg', 'loss_mask'],
      ].sort(),
    );
    await server.ok('PUT', '/project/task/train', { tid, act: 'stop' });
    const stopped = await server.until(60, 'GET', '/project/task', { tid }, ended);
    assert.equal(stopped.task_status, 8, JSON.stringify(stopped));
    await server.ok('PUT', '/project/task/train', { tid, act: 'resume' });
    const done = await server.until(240, 'GET', '/project/task', { tid }, ended);
    assert.equal(done.task_status, 4, JSON.stringify(done));
    const { eval_metric } = await server.ok('GET', '/project/task/metrics', { tid, type: 'eval' });
    assert.deepEqual(Object.keys(eval_metric), ['bbox_mmap']);
    assert.ok(eval_metric.bbox_mmap >= 0 && eval_metric.bbox_mmap <= 1);
    const text = readFileSync(join(dir, 'out.log'), 'utf8');
    assert.match(text, /\[EVAL\] Finished, Epoch=2, bbox_mmap=\d\.\d+, segm_mmap=\d\.\d+/);
    const yml = readFileSync(join(dir, 'output/best_model/model.yml'), 'utf8');
    assert.match(yml, /Model: MaskRCNN/);
    assert.match(yml, /with_fpn: true/);
    assert.match(yml, /short_size: 64/);
    const kept = JSON.parse(readFileSync(join(dir, 'output/epoch_2/eval_details.json'), 'utf8'));
    assert.equal(kept.gt.images.length, 4);
    assert.equal(kept.bbox.length, kept.mask.length);
  });

  it('reports boxes and masks of every class', async () => {
    const asked = { tid, score_thresh: 0, epoch: 2 };
    await server.ok('POST', '/project/task/evaluate', asked);
    const finished = (a: Json): boolean => a.evaluate_status !== 11;
    const answer = await server.until(60, 'GET', '/project/task/evaluate', { tid }, finished);
    assert.equal(answer.evaluate_status, 5, JSON.stringify(answer));
    const { result } = answer;
    assert.deepEqual(result.label_list, [...OBJECTS, 'back_ground']);
    assert.deepEqual([result.score_thresh, result.overlap_thresh, result.epoch], [0, 0.3, 2]);
    const { details } = await server.ok('GET', '/dataset/details', { did });
    const numbers = details.val_files.map((name: string) => Number(/(\d+)\.png$/.exec(name)?.[1]));
    const truths = numbers.flatMap((i: number) => objectsOf(scene(scenes, i)));
    for (const side of ['BBox', 'Mask']) {
      const matrix = result[`${side}_Confusion_Matrix`] as number[][];
      assert.equal(matrix.length, OBJECTS.length + 1);
      assert.equal(matrix.at(-1)?.at(-1), 0);
      for (const [id, name] of OBJECTS.entries()) {
        assert.ok(name in result[`${side}_PRAP`] && name in result[`${side}_pr_curves`]);
        const row = (matrix[id] ?? []).reduce((a, b) => a + b, 0);
        // Several detections may go to one truth.
        assert.ok(
          row >= truths.filter((truth: { id: number }) => truth.id === id).length,
          `${side} of ${name}: ${row}`,
        );
      }
    }
    const sheet = await server.ok('GET', '/project/task/evaluate/file', { tid });
    assert.ok(existsSync(sheet.path));
    await server.fails('invalid_argument', 'POST', '/project/task/evaluate', { tid, overlap_thresh: 2 });
  });

  it('predicts the test split beside the truth, and one picture with all its masks', async () => {
    const finished = (a: Json): boolean => a.predict_status !== 0;
    await server.ok('POST', '/project/task/predict', { tid });
    const split = await server.until(60, 'GET', '/project/task/predict', { tid }, finished);
    assert.deepEqual([split.predict_status, split.predict_num], [1, 2], JSON.stringify(split));
    const drawn = readFileSync(split.result[0].picture);
    assert.ok(drawn.readUInt32BE(16) > 160, 'prediction and truth side by side');

    const image_data = scenePng(scene(scenes, 5)).toString('base64');
    const { path } = await server.ok('POST', '/project/task/predict', { tid, image_data, score_thresh: 0 });
    const one = await server.until(60, 'GET', '/project/task/predict', { tid }, finished);
    assert.equal(one.predict_status, 1, JSON.stringify(one));
    assert.deepEqual([readFileSync(path).readUInt32BE(16), one.result[0].error], [80, null]);
    for (const found of one.result[0].result) {
      assert.deepEqual([found.category, found.mask.size], [OBJECTS[found.category_id], [80, 80]]);
      const [x, y, w, h] = found.bbox;
      assert.ok(x >= 0 && y >= 0 && w >= 0 && h >= 0 && x + w <= 80 && y + h <= 80, JSON.stringify(found.bbox));
    }
  });

  it('exports int8 whose boxes and masks onnxruntime measures beside fp32', async () => {
    const save_dir = join(dir, 'int8');
    const asked = { tid, type: 'infer', save_dir, quant: true, quant_images: 6 };
    await server.ok('POST', '/project/task/export', asked);
    const done = await server.until(120, 'GET', '/project/task/export', { tid }, (a) => a.export_status !== 6);
    assert.equal(done.export_status, 7, JSON.stringify(done));
    const { quant_result } = await server.ok('GET', '/project/task/export', { tid, quant: 'result' });
    for (const metrics of [quant_result.before, quant_result.after]) {
      assert.deepEqual(Object.keys(metrics), ['bbox_mmap', 'segm_mmap']);
      for (const value of Object.values<number>(metrics)) assert.ok(value >= 0 && value <= 1, JSON.stringify(metrics));
    }
    const { measured } = done;
    assert.ok(measured.difference <= 1e-3, `differs by ${measured.difference}`);
    assert.equal(measured.images, 4);
    assert.ok(measured.model.bytes < 0.4 * measured.fp32.bytes, JSON.stringify(measured));
  });

  it('is not pruned', async () => {
    await server.fails('unsupported', 'POST', '/project/task/prune', { tid });
  });
});
