/** Over HTTP: a detector trained from nothing finds shapes and digits on photographs that it has never seen. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { vocFolder } from './lib/objects.js';
import { readPng } from './lib/pictures.js';
import type { SceneSet } from './lib/scenes.js';
import { type Json, root, TestServer } from './lib/server.js';

const SIDE = 128;
const photographs = (...names: string[]): SceneSet['photographs']['train'] =>
  names.map((name) => readPng(join(root, `${name}.png`)));
const scenes: SceneSet = {
  ...{ side: SIDE, train: 320, heldOut: 60, apart: true },
  photographs: {
    train: photographs(...['astronaut', 'chelsea', 'flower', 'rocket'].map((name) => `test/photographs/${name}`)),
    heldOut: photographs('test/photographs/china', 'native/imaging/tests/fixtures/transforms/photo'),
  },
};

describe('detection of composed scenes, learned', { concurrency: false }, () => {
  let server: TestServer;

  before(async () => {
    server = await TestServer.start();
  });
  after(() => server.remove());

  it('reaches a VOC mAP50 of 50 %', async (t) => {
    const { did } = await server.ok('POST', '/dataset', { name: 's', desc: '', dataset_type: 'detection' });
    await server.ok('PUT', '/dataset', { did, path: vocFolder(scenes, join(server.folder, 'scenes')) });
    const imported = await server.until(60, 'GET', '/dataset', { did }, (a) => ![1, 3].includes(a.dataset_status));
    assert.equal(imported.dataset_status, 6, JSON.stringify(imported).slice(0, 2000));
    const { pid } = await server.ok('POST', '/project', { name: 's', desc: '', project_type: 'detection' });
    await server.ok('PUT', '/workspace', { struct: 'project', id: pid, attr_dict: { did } });
    const { train } = await server.ok('GET', '/project/task/params', { pid });
    const params: Json = {
      ...{ model: 'YOLOv3', backbone: 'MobileNetV1', batch_size: 8, num_epochs: 22, save_interval_epochs: 11 },
      ...{ image_shape: [SIDE, SIDE], random_shape: false, use_mixup: false, pretrain_weights: null },
      ...{ learning_rate: 0.002, lr_policy: 'Cosine', warmup_steps: 60 },
    };
    const { tid } = await server.ok('POST', '/project/task', { pid, train: { ...train, ...params } });
    await server.ok('POST', '/project/task/train', { tid });
    const ended = (a: Json): boolean => a.task_status !== 3;
    const done = await server.until(900, 'GET', '/project/task', { tid }, ended);
    assert.equal(done.task_status, 4, JSON.stringify(done));
    const { eval_metric } = await server.ok('GET', '/project/task/metrics', { tid, type: 'eval' });
    t.diagnostic(`mAP50 ${eval_metric.bbox_map} %`);
    assert.ok(eval_metric.bbox_map >= 50, `mAP50 ${eval_metric.bbox_map} %`);

    const save_dir = join(server.workspace, 'projects', pid, tid, 'int8');
    await server.ok('POST', '/project/task/export', { tid, type: 'infer', save_dir, quant: true, quant_images: 48 });
    const exported = await server.until(180, 'GET', '/project/task/export', { tid }, (a) => a.export_status !== 6);
    assert.equal(exported.export_status, 7, JSON.stringify(exported));
    const { quant_result } = await server.ok('GET', '/project/task/export', { tid, quant: 'result' });
    const [before, after] = [quant_result.before.bbox_map, quant_result.after.bbox_map];
    t.diagnostic(`in onnxruntime: fp32 ${before} %, int8 ${after} %`);
    assert.ok(Math.abs(before - eval_metric.bbox_map) < 1, 'onnxruntime finds what the engine finds');
    assert.ok(after > before - 5, `fp32 ${before} %, int8 ${after} %`);
  });
});
