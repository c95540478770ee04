/** The whole job of a segmentation task over HTTP: handwritten digits and shapes composed onto photographs, label maps exact by construction. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import * as ort from 'onnxruntime-node';
import { readPng } from './lib/pictures.js';
import { composed, LABELS, type SceneSet, scene, scenePng } from './lib/scenes.js';
import { type Json, root, TestServer } from './lib/server.js';

const SIDE = 96;
const TRAIN = 160;
const HELD_OUT = 40;

/** The same photographs are never in training and held out. */
const scenes: SceneSet = {
  ...{ side: SIDE, train: TRAIN, heldOut: HELD_OUT },
  photographs: {
    train: ['astronaut', 'chelsea', 'flower', 'rocket'].map((name) =>
      readPng(join(root, `test/photographs/${name}.png`)),
    ),
    heldOut: [
      readPng(join(root, 'test/photographs/china.png')),
      readPng(join(root, 'native/imaging/tests/fixtures/transforms/photo.png')),
    ],
  },
};

describe('segmentation of composed scenes, over HTTP', { concurrency: false }, () => {
  let server: TestServer;
  let pid = '';
  let tid = '';
  let dir = '';
  const params: Json = {
    model: 'DeepLabV3P',
    backbone: 'MobileNetV2_x1.0',
    batch_size: 4,
    num_epochs: 14,
    learning_rate: 0.05,
    lr_policy: 'Polynomial',
    save_interval_epochs: 7,
    image_shape: [SIDE, SIDE],
    pretrain_weights: null,
  };

  before(async () => {
    server = await TestServer.start({ threads: 0 });
  });
  after(() => server.remove());

  it('imports the set and trains to a mean IoU of 0.85', async () => {
    const { did } = await server.ok('POST', '/dataset', { name: 'scenes', desc: '', dataset_type: 'segmentation' });
    await server.ok('PUT', '/dataset', { did, path: composed(scenes, join(server.folder, 'scenes')) });
    const imported = await server.until(60, 'GET', '/dataset', { did }, (a) => ![1, 3].includes(a.dataset_status));
    assert.equal(imported.dataset_status, 6, JSON.stringify(imported).slice(0, 2000));
    ({ pid } = await server.ok('POST', '/project', { name: 'scenes', desc: '', project_type: 'segmentation' }));
    await server.ok('PUT', '/workspace', { struct: 'project', id: pid, attr_dict: { did } });
    const { train } = await server.ok('GET', '/project/task/params', { pid });
    ({ tid } = await server.ok('POST', '/project/task', { pid, train: { ...train, ...params } }));
    ({ path: dir } = (await server.ok('GET', '/workspace', { struct: 'task', id: tid, attr_list: ['path'] })).attr);
    await server.ok('POST', '/project/task/train', { tid });
    const done = await server.until(900, 'GET', '/project/task', { tid }, (a) => a.task_status !== 3, 300);
    assert.equal(done.task_status, 4, JSON.stringify(done));
    const { eval_metric } = await server.ok('GET', '/project/task/metrics', { tid, type: 'eval' });
    assert.ok(eval_metric.miou >= 0.85, JSON.stringify(eval_metric));
    assert.match(
      readFileSync(join(dir, 'out.log'), 'utf8'),
      /\[EVAL\] Finished, Epoch=14, miou=0\.\d+.*category_iou=\[/,
    );
  });

  it('reports the pixels of every class', async () => {
    await server.ok('POST', '/project/task/evaluate', { tid });
    const ended = (a: Json): boolean => a.evaluate_status !== 11;
    const { result, evaluate_status } = await server.until(60, 'GET', '/project/task/evaluate', { tid }, ended);
    assert.equal(evaluate_status, 5);
    assert.deepEqual(result.label_list, LABELS);
    const matrix = result.Confusion_Matrix as number[][];
    const truth = new Array<number>(LABELS.length).fill(0);
    for (let i = TRAIN; i < TRAIN + HELD_OUT; i += 1)
      for (const id of scene(scenes, i).map) truth[id] = (truth[id] ?? 0) + 1;
    assert.deepEqual(
      matrix.map((row) => row.reduce((a, b) => a + b, 0)),
      truth,
    );
    const ious = LABELS.map((name) => result.PRIoU[name].iou as number);
    assert.ok(Math.abs(ious.reduce((a, b) => a + b, 0) / LABELS.length - result.Mean_IoU) < 1e-9);
  });

  it('predicts a picture that it has never seen', async () => {
    const unseen = scene(scenes, 5000);
    const started = await server.ok('POST', '/project/task/predict', {
      tid,
      image_data: scenePng(unseen).toString('base64'),
    });
    const ended = (a: Json): boolean => a.predict_status !== 0;
    const done = await server.until(60, 'GET', '/project/task/predict', { tid }, ended);
    assert.equal(done.predict_status, 1, JSON.stringify(done));
    assert.ok(existsSync(started.path));
    const item = done.result?.[0]?.result ?? done.result?.[0];
    assert.deepEqual([item.width, item.height], [SIDE, SIDE]);
    const count = unseen.map.filter((id) => id === 2).length;
    const box = item.classes[2];
    assert.equal(box.category, 'box');
    assert.ok(Math.abs(box.pixels - count) < 0.25 * count, `${box.pixels} pixels of the box's ${count}`);
    const { img_data } = await server.ok('GET', '/file', { path: item.label_map });
    assert.equal(Buffer.from(img_data, 'base64').subarray(1, 4).toString(), 'PNG');
  });

  it('exports ONNX that onnxruntime runs to the same label maps', async () => {
    const save_dir = join(dir, 'export_model');
    await server.ok('POST', '/project/task/export', { tid, type: 'infer', save_dir, quant: false });
    const done = await server.until(120, 'GET', '/project/task/export', { tid }, (a) => a.export_status !== 6);
    assert.equal(done.export_status, 7, JSON.stringify(done));
    const session = await ort.InferenceSession.create(join(save_dir, 'inference_model/model.onnx'));
    assert.deepEqual(session.outputNames, ['label_map', 'score_map']);
    const pixels = SIDE * SIDE;
    let [hits, unions] = [0, 0];
    for (let i = TRAIN; i < TRAIN + 10; i += 1) {
      const made = scene(scenes, i);
      const planes = new Float32Array(3 * pixels);
      for (let c = 0; c < 3; c += 1)
        for (let p = 0; p < pixels; p += 1) planes[c * pixels + p] = ((made.pixels[p * 3 + c] ?? 0) / 255 - 0.5) / 0.5;
      const image = new ort.Tensor('float32', planes, [1, 3, SIDE, SIDE]);
      const answer = await session.run({ [session.inputNames[0] ?? '']: image });
      const ids = answer.label_map?.data as BigInt64Array;
      const scores = answer.score_map?.data as Float32Array;
      assert.deepEqual([ids.length, scores.length], [pixels, LABELS.length * pixels]);
      for (let p = 0; p < pixels; p += 1) {
        const [found, wanted] = [Number(ids[p]) === 3, made.map[p] === 3];
        if (found && wanted) hits += 1;
        if (found || wanted) unions += 1;
      }
    }
    assert.ok(hits / unions > 0.6, `IoU of the digits: ${hits / unions}`);
  });

  it('exports int8 that finds the same objects', async () => {
    const save_dir = join(dir, 'int8');
    await server.ok('POST', '/project/task/export', { tid, type: 'infer', save_dir, quant: true, quant_images: 32 });
    const done = await server.until(120, 'GET', '/project/task/export', { tid }, (a) => a.export_status !== 6);
    assert.equal(done.export_status, 7, JSON.stringify(done));
    const { quant_result } = await server.ok('GET', '/project/task/export', { tid, quant: 'result' });
    const { eval_metric } = await server.ok('GET', '/project/task/metrics', { tid, type: 'eval' });
    const [before, after] = [quant_result.before.miou, quant_result.after.miou];
    assert.ok(Math.abs(before - eval_metric.miou) < 1e-4, `${before} of ${eval_metric.miou}`);
    assert.ok(before - after < 0.03, `${before} became ${after}`);
    assert.ok(done.measured.model.bytes < 0.3 * done.measured.fp32.bytes, JSON.stringify(done.measured));
  });
});
