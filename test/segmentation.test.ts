/** The whole job of a segmentation task over HTTP: handwritten digits and shapes composed onto photographs, label maps exact by construction. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import * as ort from 'onnxruntime-node';
import { digit, enlarged, type Picture, png, readPng } from './lib/pictures.js';
import { type Json, root, TestServer } from './lib/server.js';

const LABELS = ['background', 'disc', 'box', '数字'];
const SIDE = 96;
const TRAIN = 160;
const HELD_OUT = 40;

/** Numbers in 0–1 that are the same in every run. */
function randoms(seed: number): () => number {
  let state = seed * 2654435761 + 1;
  return () => {
    state = (Math.imul(state ^ (state >>> 15), 2246822519) + 374761393) | 0;
    return ((state ^ (state >>> 13)) >>> 0) / 2 ** 32;
  };
}

interface Scene {
  pixels: Uint8Array;
  map: Uint8Array;
}

/** The same photographs are never in training and held out. */
const photographs = {
  train: ['astronaut', 'chelsea', 'flower', 'rocket'].map((name) =>
    readPng(join(root, `test/photographs/${name}.png`)),
  ),
  heldOut: [
    readPng(join(root, 'test/photographs/china.png')),
    readPng(join(root, 'native/imaging/tests/fixtures/transforms/photo.png')),
  ],
};

/** A cut of a photograph, maybe mirrored. */
function cut({ width, height, pixels }: Picture, random: () => number): Uint8Array {
  const [left, top] = [Math.floor(random() * (width - SIDE)), Math.floor(random() * (height - SIDE))];
  const mirrored = random() < 0.5;
  const out = new Uint8Array(SIDE * SIDE * 3);
  for (let y = 0; y < SIDE; y += 1) {
    for (let x = 0; x < SIDE; x += 1) {
      const from = ((top + y) * width + left + (mirrored ? SIDE - 1 - x : x)) * 3;
      out.set(pixels.subarray(from, from + 3), (y * SIDE + x) * 3);
    }
  }
  return out;
}

/** A disc, a box and a digit, later ones before earlier ones. */
function scene(seed: number): Scene {
  const random = randoms(seed);
  const backgrounds = seed < TRAIN ? photographs.train : photographs.heldOut;
  const background = backgrounds[seed % backgrounds.length];
  assert.ok(background);
  const pixels = cut(background, random);
  const map = new Uint8Array(SIDE * SIDE);
  const paint = (x: number, y: number, id: number, colour: readonly number[]): void => {
    if (x < 0 || y < 0 || x >= SIDE || y >= SIDE) return;
    map[y * SIDE + x] = id;
    for (const c of [0, 1, 2]) pixels[(y * SIDE + x) * 3 + c] = (colour[c] ?? 0) + random() * 30;
  };
  const size = 36 + Math.floor(random() * 16);
  const place = (): number => Math.floor(random() * (SIDE - size));
  const objects = [1, 2, 3].map((id) => ({ id, left: place(), top: place() }));
  const ink = enlarged(digit('train', seed), 28, size);
  for (const { id, left, top } of objects) {
    const [strong, middle, weak] = [150 + random() * 75, 20 + random() * 130, 10 + random() * 60];
    // Discs are purple, boxes cold, digits lime: colours that photographs seldom have make the training short.
    const colour = { 1: [strong, weak, strong], 2: [weak, middle, strong], 3: [180, 225, 0] }[id] ?? [];
    for (let y = 0; y < size; y += 1) {
      for (let x = 0; x < size; x += 1) {
        const [dx, dy] = [x - size / 2, y - size / 2];
        if (id === 3 ? (ink[y * size + x] ?? 0) > 100 : id === 2 || dx * dx + dy * dy < (size * size) / 4)
          paint(left + x, top + y, id, colour);
      }
    }
  }
  return { pixels, map };
}

const rgb = ({ pixels }: Scene): Buffer => png(SIDE, SIDE, 3, pixels);

function composed(folder: string): string {
  for (const name of ['JPEGImages', 'Annotations']) mkdirSync(join(folder, name), { recursive: true });
  const lines: string[] = [];
  for (let i = 0; i < TRAIN + HELD_OUT; i += 1) {
    const made = scene(i);
    writeFileSync(join(folder, `JPEGImages/${i}.png`), rgb(made));
    writeFileSync(join(folder, `Annotations/${i}.png`), png(SIDE, SIDE, 1, made.map));
    lines.push(`JPEGImages/${i}.png Annotations/${i}.png`);
  }
  writeFileSync(join(folder, 'labels.txt'), `${LABELS.join('\n')}\n`);
  writeFileSync(join(folder, 'train_list.txt'), `${lines.slice(0, TRAIN).join('\n')}\n`);
  writeFileSync(join(folder, 'val_list.txt'), `${lines.slice(TRAIN).join('\n')}\n`);
  return folder;
}

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
    await server.ok('PUT', '/dataset', { did, path: composed(join(server.folder, 'scenes')) });
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
    for (let i = TRAIN; i < TRAIN + HELD_OUT; i += 1) for (const id of scene(i).map) truth[id] = (truth[id] ?? 0) + 1;
    assert.deepEqual(
      matrix.map((row) => row.reduce((a, b) => a + b, 0)),
      truth,
    );
    const ious = LABELS.map((name) => result.PRIoU[name].iou as number);
    assert.ok(Math.abs(ious.reduce((a, b) => a + b, 0) / LABELS.length - result.Mean_IoU) < 1e-9);
  });

  it('predicts a picture that it has never seen', async () => {
    const unseen = scene(5000);
    const started = await server.ok('POST', '/project/task/predict', {
      tid,
      image_data: rgb(unseen).toString('base64'),
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
      const made = scene(i);
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
    assert.ok(hits / unions > 0.7, `IoU of the digits: ${hits / unions}`);
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
