/** Smaller segmenters over HTTP, on pictures of discs: int8 measured by onnxruntime, lite, and a pruned child. */
import assert from 'node:assert/strict';
import { mkdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import * as ort from 'onnxruntime-node';
import { png } from './lib/pictures.js';
import { type Json, TestServer } from './lib/server.js';

/** Pictures, and what the network sees of them. */
const SIDE = 96;
const INPUT = 64;
const COUNT = 60;

const params: Json = {
  model: 'FastSCNN',
  batch_size: 8,
  num_epochs: 6,
  learning_rate: 0.05,
  save_interval_epochs: 2,
  image_shape: [INPUT, INPUT],
  losses: ['cross_entropy', 'dice:0.5', { kind: 'lovasz', weight: 0.5 }],
  class_weights: '1, 2',
  precision: 'fp32',
  pretrain_weights: null,
};

/** The same as an array of five channels of 16 bits: twice the colours' first two beside them, all but one of 700 and more. */
function array(pixels: Uint8Array): Buffer {
  const header = `{'descr': '<u2', 'fortran_order': False, 'shape': (${SIDE}, ${SIDE}, 5), }`.padEnd(117);
  const values = Uint16Array.from({ length: SIDE * SIDE * 5 }, (_, at) => {
    const [pixel, channel] = [Math.floor(at / 5), at % 5];
    return 700 * channel + (channel + 3) * (pixels[pixel * 3 + (channel % 3)] ?? 0);
  });
  const start = Buffer.from('\x93NUMPY\x01\x00\x76\x00', 'latin1');
  return Buffer.concat([start, Buffer.from(`${header}\n`), Buffer.from(values.buffer)]);
}

/** Bright discs on noise, with their label maps; one corner of each map is to be ignored. */
function discs(folder: string, remote: boolean): string {
  mkdirSync(join(folder, 'JPEGImages'), { recursive: true });
  mkdirSync(join(folder, 'Annotations'));
  let state = 7;
  const random = (): number => {
    state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
    return state / 0x7fffffff;
  };
  for (let i = 0; i < COUNT; i += 1) {
    const [cx, cy, r] = [30 + random() * 36, 30 + random() * 36, 12 + random() * 14];
    const pixels = new Uint8Array(SIDE * SIDE * 3);
    const labels = new Uint8Array(SIDE * SIDE);
    for (let p = 0; p < labels.length; p += 1) {
      const [x, y] = [p % SIDE, Math.floor(p / SIDE)];
      const inside = (x - cx) ** 2 + (y - cy) ** 2 < r * r;
      labels[p] = x < 4 && y < 4 ? 255 : inside ? 1 : 0;
      for (let c = 0; c < 3; c += 1) pixels[p * 3 + c] = (inside ? 170 - c * 40 : 60 + c * 20) + random() * 50;
    }
    if (remote) writeFileSync(join(folder, `JPEGImages/d${i}.npy`), array(pixels));
    else writeFileSync(join(folder, `JPEGImages/d${i}.png`), png(SIDE, SIDE, 3, pixels));
    writeFileSync(join(folder, `Annotations/d${i}.png`), png(SIDE, SIDE, 1, labels));
  }
  writeFileSync(join(folder, 'labels.txt'), 'background\ndisc\n');
  return folder;
}

describe('smaller segmenters over HTTP', { concurrency: false }, () => {
  let server: TestServer;
  let pid = '';
  let tid = '';
  let dir = '';

  before(async () => {
    server = await TestServer.start();
  });
  after(() => server.remove());

  /** A project with a trained segmenter, its folder, and the number of its validation pictures. */
  async function trained(remote: boolean): Promise<{ pid: string; tid: string; dir: string; val: number }> {
    const type = remote ? 'remote_segmentation' : 'segmentation';
    const { did } = await server.ok('POST', '/dataset', { name: type, desc: '', dataset_type: type });
    await server.ok('PUT', '/dataset', { did, path: discs(join(server.folder, type), remote) });
    const imported = await server.until(60, 'GET', '/dataset', { did }, (a) => ![1, 3].includes(a.dataset_status));
    assert.equal(imported.dataset_status, 4, JSON.stringify(imported));
    await server.ok('PUT', '/dataset/split', { did, val_split: 0.2, test_split: 0.1, seed: 3 });
    const val = (await server.ok('GET', '/dataset/details', { did })).details.val_files.length;
    const made = await server.ok('POST', '/project', { name: type, desc: '', project_type: type });
    await server.ok('PUT', '/workspace', { struct: 'project', id: made.pid, attr_dict: { did } });
    const task = await server.ok('POST', '/project/task', { pid: made.pid, train: params });
    const { train } = await server.ok('GET', '/project/task/params', { tid: task.tid });
    assert.deepEqual(train.class_weights, [1, 2]);
    assert.deepEqual(train.losses[1], { kind: 'dice', weight: 0.5 });
    await server.ok('POST', '/project/task/params', { tid: task.tid, train: { class_weights: [1, 2, 3] } });
    const refused = await server.fails('invalid_argument', 'POST', '/project/task/train', { tid: task.tid });
    assert.match(JSON.stringify(refused), /class_weights has 3 values, but the dataset has 2 labels/);
    await server.ok('POST', '/project/task/params', { tid: task.tid, train: { class_weights: [1, 2] } });
    await server.ok('POST', '/project/task/train', { tid: task.tid });
    const done = await server.until(300, 'GET', '/project/task', { tid: task.tid }, (a) => a.task_status !== 3, 200);
    assert.equal(done.task_status, 4, JSON.stringify(done));
    const folder = join(server.workspace, 'projects', made.pid, task.tid);
    return { pid: made.pid, tid: task.tid, dir: folder, val };
  }

  /** Exports with integers and compares what was measured with what was trained. */
  async function quantized({ tid, val }: { tid: string; val: number }, save_dir: string): Promise<void> {
    await server.ok('POST', '/project/task/export', { tid, type: 'infer', save_dir, quant: true, quant_images: 24 });
    const done = await server.until(60, 'GET', '/project/task/export', { tid }, (a) => a.export_status !== 6);
    assert.equal(done.export_status, 7, JSON.stringify(done));
    const { quant_result } = await server.ok('GET', '/project/task/export', { tid, quant: 'result' });
    assert.deepEqual(
      [quant_result.before, quant_result.after].map((metrics) => Object.keys(metrics)),
      [['miou'], ['miou']],
    );
    const { eval_metric } = await server.ok('GET', '/project/task/metrics', { tid, type: 'eval' });
    assert.ok(eval_metric.miou > 0.6, `${eval_metric.miou}`);
    assert.ok(Math.abs(quant_result.before.miou - eval_metric.miou) < 1e-3, 'the other runtime finds what was trained');
    assert.ok(quant_result.before.miou - quant_result.after.miou < 0.03, JSON.stringify(quant_result));
    const { measured } = done;
    assert.ok(measured.difference <= 1e-4, `differs by ${measured.difference}`);
    assert.equal(measured.images, val);
    assert.ok(measured.model.bytes < 0.4 * measured.fp32.bytes, JSON.stringify(measured));
  }

  it('int8 of remote sensing pictures, and its lite form', async () => {
    const made = await trained(true);
    const save_dir = join(made.dir, 'int8');
    await quantized(made, save_dir);
    const lite = { tid: made.tid, type: 'lite', model_path: save_dir, save_dir: join(made.dir, 'lite') };
    assert.match((await server.ok('POST', '/project/task/export', lite)).message, /model\.ort, /);
  });

  it('int8: the mean IoU of label maps before and after, then the lite form', async () => {
    const made = await trained(false);
    ({ pid, tid, dir } = made);
    const save_dir = join(dir, 'int8');
    await quantized(made, save_dir);
    const lite = { tid, type: 'lite', model_path: save_dir, save_dir: join(dir, 'lite') };
    const { message } = await server.ok('POST', '/project/task/export', lite);
    assert.match(message, /lite_model\/model\.ort, \d+\.\d MB\.$/);
    const session = await ort.InferenceSession.create(join(dir, 'lite/lite_model/model.ort'));
    assert.deepEqual([...session.outputNames].sort(), ['label_map', 'score_map']);
    const input = new ort.Tensor('float32', new Float32Array(3 * INPUT * INPUT), [1, 3, INPUT, INPUT]);
    const { label_map, score_map } = await session.run({ [session.inputNames[0] ?? '']: input });
    assert.deepEqual(
      [label_map?.dims, score_map?.dims],
      [
        [1, INPUT, INPUT],
        [1, 2, INPUT, INPUT],
      ],
    );
    await session.release();
  });

  it('is analysed, and trains a pruned child', async () => {
    await server.ok('POST', '/project/task/prune', { tid });
    const end = await server.until(120, 'GET', '/project/task/prune', { tid }, (a) => a.prune_status !== 1);
    assert.equal(end.prune_status, 2, JSON.stringify(end));
    const { sensitivities_loss_img: curve } = await server.ok('GET', '/project/task/metrics', {
      tid,
      type: 'sensitivities',
    });
    assert.ok(Object.keys(curve).length > 0, JSON.stringify(curve));
    const { tid: child } = await server.ok('POST', '/project/task', { pid, parent_id: tid });
    const short = { num_epochs: 1, save_interval_epochs: 1 };
    await server.ok('POST', '/project/task/params', { tid: child, train: short });
    await server.ok('POST', '/project/task/train', { tid: child, pruned_flops: 0.3 });
    const done = await server.until(
      120,
      'GET',
      '/project/task',
      { tid: child },
      (a) => ![3, 15].includes(a.task_status),
      200,
    );
    assert.equal(done.task_status, 4, JSON.stringify(done));
    const best = join(server.workspace, 'projects', pid, child, 'output/best_model');
    const bytes = (folder: string): number => statSync(join(folder, 'model.safetensors')).size;
    assert.ok(bytes(best) < 0.95 * bytes(join(dir, 'output/best_model')));
  });
});
