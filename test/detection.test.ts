/** The whole job of a detection task over HTTP: shapes and digits composed onto photographs, boxes exact by construction. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import * as ort from 'onnxruntime-node';
import { OBJECTS, objectsOf, vocFolder } from './lib/objects.js';
import { readPng } from './lib/pictures.js';
import { type SceneSet, scene, scenePng } from './lib/scenes.js';
import { type Json, root, TestServer } from './lib/server.js';

const photograph = readPng(join(root, 'test/photographs/chelsea.png'));
const SIDE = 96;
const scenes: SceneSet = {
  ...{ side: SIDE, train: 13, heldOut: 4 },
  photographs: { train: [photograph], heldOut: [photograph] },
};

describe('detection of composed scenes, over HTTP', { concurrency: false }, () => {
  let server: TestServer;
  let pid = '';
  let tid = '';
  let dir = '';
  const params: Json = {
    ...{ model: 'YOLOv3', backbone: 'MobileNetV1', batch_size: 4, num_epochs: 2, image_shape: [SIDE, SIDE] },
    ...{ learning_rate: 0.001, warmup_steps: 2, lr_decay_epochs: [2], save_interval_epochs: 1 },
    ...{ random_shape_sizes: [64, 96], pretrain_weights: null },
  };
  const ended = (a: Json): boolean => a.task_status !== 3;

  before(async () => {
    server = await TestServer.start({ threads: 0 });
  });
  after(() => server.remove());

  it('imports a set with a picture that shows nothing', async () => {
    const folder = vocFolder(scenes, join(server.folder, 'scenes'), 2);
    writeFileSync(join(folder, 'Annotations/0.xml'), '<annotation></annotation>');
    const { did } = await server.ok('POST', '/dataset', { name: 's', desc: '', dataset_type: 'detection' });
    await server.ok('PUT', '/dataset', { did, path: folder });
    const imported = await server.until(60, 'GET', '/dataset', { did }, (a) => ![1, 3].includes(a.dataset_status));
    assert.equal(imported.dataset_status, 6, JSON.stringify(imported).slice(0, 2000));
    ({ pid } = await server.ok('POST', '/project', { name: 's', desc: '', project_type: 'detection' }));
    await server.ok('PUT', '/workspace', { struct: 'project', id: pid, attr_dict: { did } });
  });

  it('trains, is stopped in the middle and goes on', async () => {
    const { train } = await server.ok('GET', '/project/task/params', { pid });
    assert.deepEqual([train.model, train.use_mixup, train.random_shape], ['YOLOv3', true, true]);
    ({ tid } = await server.ok('POST', '/project/task', { pid, train: { ...train, ...params } }));
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
      ['Epoch', 'Step', 'loss', 'lr', 'loss_xy', 'loss_wh', 'loss_obj', 'loss_cls'].sort(),
    );
    await server.ok('PUT', '/project/task/train', { tid, act: 'stop' });
    const stopped = await server.until(60, 'GET', '/project/task', { tid }, ended);
    assert.equal(stopped.task_status, 8, JSON.stringify(stopped));
    await server.ok('PUT', '/project/task/train', { tid, act: 'resume' });
    const done = await server.until(240, 'GET', '/project/task', { tid }, ended);
    assert.equal(done.task_status, 4, JSON.stringify(done));
    const { eval_metric } = await server.ok('GET', '/project/task/metrics', { tid, type: 'eval' });
    assert.deepEqual(Object.keys(eval_metric), ['bbox_map']);
    assert.ok(eval_metric.bbox_map >= 0 && eval_metric.bbox_map <= 100);
    const text = readFileSync(join(dir, 'out.log'), 'utf8');
    assert.match(text, /1 training images have no objects and are left out/);
    assert.match(text, /\[EVAL\] Finished, Epoch=2, bbox_map=\d+\.\d+/);
    const yml = readFileSync(join(dir, 'output/best_model/model.yml'), 'utf8');
    for (const line of [/Model: YOLOv3/, /backbone: MobileNetV1/, /interp: CUBIC/, /anchor_masks:/])
      assert.match(yml, line);
  });

  it('reports boxes of every class', async () => {
    await server.ok('POST', '/project/task/evaluate', { tid, score_thresh: 0 });
    const finished = (a: Json): boolean => a.evaluate_status !== 11;
    const answer = await server.until(60, 'GET', '/project/task/evaluate', { tid }, finished);
    assert.equal(answer.evaluate_status, 5, JSON.stringify(answer));
    const { result } = answer;
    assert.deepEqual(result.label_list, [...OBJECTS, 'back_ground']);
    assert.deepEqual([result.score_thresh, result.overlap_thresh, result.epoch], [0, 0.5, null]);
    const held = Array.from({ length: scenes.heldOut }, (_, i) => objectsOf(scene(scenes, scenes.train + i))).flat();
    const matrix = result.Confusion_Matrix as number[][];
    assert.deepEqual([matrix.length, matrix.at(-1)?.at(-1)], [OBJECTS.length + 1, 0]);
    for (const [id, name] of OBJECTS.entries()) {
      const row = (matrix[id] ?? []).reduce((a, b) => a + b, 0);
      assert.ok(row >= held.filter((truth) => truth.id === id).length, `${name}: ${row}`);
      assert.deepEqual(Object.keys(result.PRAP[name]).sort(), ['AP', 'precision', 'recall']);
      assert.equal(result.pr_curves[name].precision.length, 101);
    }
    const { path } = await server.ok('GET', '/project/task/evaluate/file', { tid });
    assert.ok(existsSync(path));
  });

  it('predicts the test split beside the truth, and one picture', async () => {
    const finished = (a: Json): boolean => a.predict_status !== 0;
    await server.ok('POST', '/project/task/predict', { tid });
    const split = await server.until(60, 'GET', '/project/task/predict', { tid }, finished);
    assert.deepEqual([split.predict_status, split.predict_num], [1, 2], JSON.stringify(split));
    assert.ok(readFileSync(split.result[0].picture).readUInt32BE(16) > 2 * SIDE, 'prediction and truth side by side');
    const image_data = scenePng(scene(scenes, 5)).toString('base64');
    const { path } = await server.ok('POST', '/project/task/predict', { tid, image_data, score_thresh: 0 });
    const one = await server.until(60, 'GET', '/project/task/predict', { tid }, finished);
    assert.equal(one.predict_status, 1, JSON.stringify(one));
    assert.equal(readFileSync(path).readUInt32BE(16), SIDE);
    for (const found of one.result[0].result) {
      assert.equal(found.category, OBJECTS[found.category_id]);
      const [x, y, w, h] = found.bbox;
      assert.ok(x >= 0 && y >= 0 && w >= 0 && h >= 0 && x + w <= SIDE && y + h <= SIDE, JSON.stringify(found.bbox));
    }
  });

  it('exports ONNX that gives final boxes in onnxruntime', async () => {
    const save_dir = join(dir, 'export_model');
    await server.ok('POST', '/project/task/export', { tid, type: 'infer', save_dir, quant: false });
    const done = await server.until(120, 'GET', '/project/task/export', { tid }, (a) => a.export_status !== 6);
    assert.equal(done.export_status, 7, JSON.stringify(done));
    const { pixels } = scene(scenes, 5);
    const [mean, std] = [
      [0.485, 0.456, 0.406],
      [0.229, 0.224, 0.225],
    ];
    const image = Float32Array.from({ length: 3 * SIDE * SIDE }, (_, i) => {
      const [channel, pixel] = [Math.floor(i / SIDE / SIDE), i % (SIDE * SIDE)];
      return ((pixels[3 * pixel + channel] ?? 0) / 255 - (mean[channel] ?? 0)) / (std[channel] ?? 1);
    });
    const session = await ort.InferenceSession.create(join(save_dir, 'inference_model/model.onnx'));
    const found = await session.run({
      image: new ort.Tensor('float32', image, [1, 3, SIDE, SIDE]),
      size: new ort.Tensor('float32', Float32Array.from([SIDE, SIDE, SIDE, SIDE]), [4]),
    });
    const { path: _, ...asked } = await server.ok('POST', '/project/task/predict', {
      tid,
      image_data: scenePng(scene(scenes, 5)).toString('base64'),
      score_thresh: 0,
    });
    assert.equal(asked.status, 1);
    const one = await server.until(60, 'GET', '/project/task/predict', { tid }, (a) => a.predict_status !== 0);
    const ours: { score: number }[] = one.result[0].result;
    const scores = Array.from(found.scores?.data as Float32Array);
    assert.equal(found.boxes?.dims[0], scores.length);
    assert.ok(Math.abs(scores.length - ours.length) <= 10, `${scores.length} and ${ours.length} boxes`);
    // Predictions may be computed in 16 bits.
    for (const [i, score] of scores.slice(0, 5).entries())
      assert.ok(Math.abs(score - (ours[i]?.score ?? 0)) <= 0.03, `${score} and ${ours[i]?.score}`);
    await session.release();
  });

  it('exports int8 that onnxruntime measures beside fp32, and its lite form', async () => {
    const save_dir = join(dir, 'int8');
    const asked = { tid, type: 'infer', save_dir, quant: true, quant_images: 8 };
    await server.ok('POST', '/project/task/export', asked);
    const done = await server.until(120, 'GET', '/project/task/export', { tid }, (a) => a.export_status !== 6);
    assert.equal(done.export_status, 7, JSON.stringify(done));
    const { quant_result } = await server.ok('GET', '/project/task/export', { tid, quant: 'result' });
    const [before, after] = [quant_result.before, quant_result.after];
    assert.deepEqual([Object.keys(before), Object.keys(after)], [['bbox_map'], ['bbox_map']]);
    const { eval_metric } = await server.ok('GET', '/project/task/metrics', { tid, type: 'eval' });
    const apart = Math.abs(before.bbox_map - eval_metric.bbox_map);
    assert.ok(apart < 1, `the other runtime finds ${before.bbox_map}, the training ${eval_metric.bbox_map}`);
    assert.ok(after.bbox_map >= 0 && after.bbox_map <= 100, JSON.stringify(quant_result));
    const { measured } = done;
    assert.ok(measured.difference <= 1e-3, `differs by ${measured.difference}`);
    assert.equal(measured.images, scenes.heldOut);
    assert.ok(measured.model.bytes < 0.4 * measured.fp32.bytes, JSON.stringify(measured));
    assert.ok(!existsSync(join(dir, 'logs/export/truth.json')), 'nothing of the measurement is left');
    const lite = { tid, type: 'lite', model_path: save_dir, save_dir: join(dir, 'lite') };
    assert.match((await server.ok('POST', '/project/task/export', lite)).message, /lite_model\/model\.ort, /);
    const session = await ort.InferenceSession.create(join(dir, 'lite/lite_model/model.ort'));
    assert.deepEqual([...session.outputNames].sort(), ['boxes', 'labels', 'scores']);
    await session.release();
  });

  it('stops at a loss that is no number, with advice, and keeps what was saved', async () => {
    const { train } = await server.ok('GET', '/project/task/params', { pid });
    const wild = { ...train, ...params, learning_rate: 100, warmup_steps: 0, num_epochs: 20 };
    const { tid: lost } = await server.ok('POST', '/project/task', { pid, train: wild });
    await server.ok('POST', '/project/task/train', { tid: lost });
    const failed = await server.until(240, 'GET', '/project/task', { tid: lost }, ended);
    assert.equal(failed.task_status, 10, JSON.stringify(failed));
    assert.match(failed.message, /NaN/);
    assert.match(failed.message, /learning_rate/);
  });
});
