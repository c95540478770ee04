/** The whole job of one task over HTTP, on MNIST: import, train, watch, stop, resume, evaluate, predict, export, run the ONNX. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import * as ort from 'onnxruntime-node';
import { digit, enlarged, mnistFolder, normalized } from './lib/pictures.js';
import { type Json, TestServer } from './lib/server.js';

const trainCount = 12_000;
const valCount = 2_000;

describe('classification of MNIST, over HTTP', { concurrency: false }, () => {
  let server: TestServer;
  let did = '';
  let pid = '';
  let tid = '';
  let dir = '';
  const params: Json = {
    model: 'ResNet18',
    batch_size: 32,
    num_epochs: 3,
    learning_rate: 0.03,
    lr_policy: 'Cosine',
    warmup_steps: 100,
    save_interval_epochs: 1,
    image_shape: [48, 48],
    horizontal_flip: false,
    vertical_flip: false,
    brightness: false,
    contrast: false,
    saturation: false,
    hue: false,
    rotate: false,
    pretrain_weights: null,
  };

  before(async () => {
    // The one long training of all tests: it gets every core.
    server = await TestServer.start({ args: ['--data_root', mnistFolder(trainCount, valCount)], threads: 0 });
  });
  after(() => server.remove());

  it('imports a split dataset', async () => {
    const created = await server.ok('POST', '/dataset', { name: '手写数字', desc: '', dataset_type: 'classification' });
    did = created.did;
    assert.equal(did, 'D0001');
    assert.equal(created.id, did, 'the published quick start reads `id`');
    await server.ok('PUT', '/dataset', { did, path: mnistFolder(trainCount, valCount) });
    const done = await server.until(180, 'GET', '/dataset', { did }, (a) => ![1, 3].includes(a.dataset_status));
    assert.equal(done.dataset_status, 6, JSON.stringify(done).slice(0, 2000));
    const { details } = await server.ok('GET', '/dataset/details', { did });
    assert.deepEqual(details.labels, ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9']);
    assert.equal(details.train_files.length, trainCount);
    assert.equal(details.val_files.length, valCount);
    for (const label of details.labels) {
      for (const map of ['label_info', 'class_train_file_list', 'class_val_file_list', 'class_test_file_list']) {
        assert.ok(Array.isArray(details[map][label]), `${map} has every label`);
      }
    }
    const { attr } = await server.ok('GET', '/dataset', { did });
    const picture = await server.ok('GET', '/file', { path: `${attr.path}/${details.train_files[0]}` });
    assert.deepEqual(
      Buffer.from(picture.img_data, 'base64'),
      readFileSync(join(mnistFolder(trainCount, valCount), details.train_files[0])),
      'the file itself, as plain base64',
    );
  });

  it("creates project and task with the page's calls", async () => {
    ({ pid } = await server.ok('POST', '/project', { name: 'digits', desc: '', project_type: 'classification' }));
    await server.ok('PUT', '/workspace', { struct: 'project', id: pid, attr_dict: { did } });
    const { train } = await server.ok('GET', '/project/task/params', { pid });
    assert.equal(train.model, 'MobileNetV2');
    assert.equal(train.pretrain_weights, null, 'no name is offered whose weights are not there');
    ({ tid } = await server.ok('POST', '/project/task', { pid, train: JSON.stringify({ ...train, ...params }) }));
    const { task_status } = await server.ok('GET', '/project/task', { tid });
    assert.equal(task_status, 1);
    const { attr } = await server.ok('GET', '/workspace', {
      struct: 'task',
      id: tid,
      attr_list: ['path', 'parent_id'],
    });
    dir = attr.path;
    assert.ok(dir.endsWith(`/projects/${pid}/${tid}`));
  });

  it('trains, shows progress, stops within a step and resumes', async () => {
    await server.ok('POST', '/project/task/train', { tid });
    await server.fails('conflict', 'POST', '/project/task/train', { tid });
    const running = await server.until(
      300,
      'GET',
      '/project/task/metrics',
      { tid, type: 'train' },
      (a) => a.train_log?.train_metrics?.Step >= 20,
    );
    const log = running.train_log;
    assert.equal(log.train_metrics.Epoch, 1);
    for (const key of ['loss', 'acc1', 'acc5', 'lr']) assert.equal(typeof log.train_metrics[key], 'number', key);
    assert.ok(Number.isInteger(log.eta) && log.eta > 0);
    assert.match(log.running_duration, /^\d+小时\d+分\d+秒$/);
    assert.equal(log.log_file, join(dir, 'out.log'));
    assert.equal((await server.ok('GET', '/project/task', { tid })).task_status, 3);
    await server.until(
      900,
      'GET',
      '/project/task/metrics',
      { tid, type: 'train' },
      (a) => a.train_log?.eval_metrics?.Epoch === 1,
      200,
    );
    await server.ok('PUT', '/project/task/train', { tid, act: 'stop' });
    const stopped = await server.ok('GET', '/project/task', { tid, resume: '' });
    assert.equal(stopped.task_status, 8);
    assert.equal(stopped.resumable, true);
    assert.ok(stopped.max_saved_epochs >= 1);
    await server.fails('conflict', 'PUT', '/project/task/train', { tid, act: 'stop' });
    await server.ok('PUT', '/project/task/train', { tid, act: 'resume', epoch: stopped.max_saved_epochs });
    const done = await server.until(1500, 'GET', '/project/task', { tid }, (a) => ![3].includes(a.task_status), 300);
    assert.equal(done.task_status, 4, JSON.stringify(done));
  });

  it('reaches 98.5 % on the validation digits', async () => {
    const best = await server.ok('GET', '/project/task/metrics', { tid, type: 'eval' });
    assert.deepEqual(best.eval_metric, best.eval_metrics);
    assert.ok(best.eval_metric.acc1 >= 0.985, `acc1 ${best.eval_metric.acc1}`);
    const all = await server.ok('GET', '/project/task/metrics', { tid, type: 'eval_all' });
    assert.equal(all.key, 'acc1');
    assert.deepEqual(Object.keys(all.epoch_result_dict), ['1', '2', '3']);
    assert.equal(all.best_result, best.eval_metric.acc1);
    for (const epoch of [1, 2, 3]) assert.ok(existsSync(join(dir, `output/epoch_${epoch}/.success`)));
    assert.match(readFileSync(join(dir, 'out.log'), 'utf8'), /\[EVAL\] Finished, Epoch=3, acc1=0\.\d+/);
    const events = readdirSync(join(dir, 'output/vdl_log')).filter((name) => name.includes('tfevents'));
    assert.ok(events.length > 0 && statSync(join(dir, 'output/vdl_log', events[0] ?? '')).size > 1000);
  });

  it('evaluates: confusion matrix, per-class figures, spreadsheet', async () => {
    await server.ok('POST', '/project/task/evaluate', {
      tid,
      epoch: null,
      topk: 5,
      score_thresh: null,
      overlap_thresh: null,
    });
    const { result, evaluate_status } = await server.until(
      60,
      'GET',
      '/project/task/evaluate',
      { tid },
      (a) => a.evaluate_status !== 11,
    );
    assert.equal(evaluate_status, 5);
    assert.equal(result.topk, 5);
    const matrix = result.Confusion_Matrix as number[][];
    const total = matrix.flat().reduce((sum, value) => sum + value, 0);
    assert.equal(total, valCount);
    const hits = matrix.reduce((sum, row, i) => sum + (row[i] ?? 0), 0);
    assert.ok(Math.abs(result.Acc1 - hits / valCount) < 1e-9);
    const seven = matrix.map((row) => row[7] ?? 0).reduce((a, b) => a + b, 0);
    assert.ok(Math.abs(result.PRF1['7'].precision - (matrix[7]?.[7] ?? 0) / seven) < 1e-6);
    const sheet = await server.ok('GET', '/project/task/evaluate/file', { tid });
    assert.equal(sheet.path, join(dir, `report-task${tid}.xls`));
    assert.ok(statSync(sheet.path).size > 2000);
    assert.equal((await server.ok('GET', '/project/task', { tid })).task_status, 5);
  });

  it('predicts a picture sent as base64, and the list of files', async () => {
    const picture = join(mnistFolder(trainCount, valCount), '7/t10k0.png');
    const started = await server.ok('POST', '/project/task/predict', {
      tid,
      image_data: readFileSync(picture).toString('base64'),
    });
    assert.equal(started.path, join(dir, 'visualized_test_results/predict_result.png'));
    const done = await server.until(30, 'GET', '/project/task/predict', { tid }, (a) => a.predict_status !== 0);
    assert.equal(done.predict_status, 1, JSON.stringify(done));
    assert.equal(done.result?.[0]?.category ?? done.result?.[0]?.result?.[0]?.category, '7');
    const drawn = await server.ok('GET', '/file', { path: started.path });
    assert.equal(Buffer.from(drawn.img_data, 'base64').subarray(1, 4).toString(), 'PNG');
    const list = [picture, join(mnistFolder(trainCount, valCount), '2/t10k1.png')];
    const batch = await server.ok('POST', '/project/task/predict', { tid, img_list: list });
    assert.deepEqual(Object.keys(batch), ['status']);
    const both = await server.until(30, 'GET', '/project/task/predict', { tid }, (a) => a.predict_status !== 0);
    assert.equal(both.predict_num, 2);
    assert.equal(both.total_num, 2);
    assert.ok(existsSync(join(dir, 'visualized_test_results/7_t10k0.png')));
  });

  it('exports ONNX that onnxruntime runs to the same accuracy', async () => {
    const save_dir = join(dir, 'export_model');
    await server.ok('POST', '/project/task/export', { tid, type: 'infer', save_dir, quant: false });
    const { emid } = await server.ok('POST', '/model', {
      pid,
      tid,
      name: `${tid}_export_model`,
      type: 'exported',
      source_path: '',
      path: save_dir,
      exported_type: 0,
      eval_results: {},
    });
    const done = await server.until(60, 'GET', '/project/task/export', { tid }, (a) => a.export_status !== 6);
    assert.equal(done.export_status, 7, JSON.stringify(done));
    const { exported_models } = await server.ok('GET', '/model', { type: 'exported' });
    assert.equal(exported_models[0].id, emid);
    const session = await ort.InferenceSession.create(join(save_dir, 'inference_model/model.onnx'));
    const [input, output] = [session.inputNames[0] ?? '', session.outputNames[0] ?? ''];
    const zeros = new ort.Tensor('float32', new Float32Array(2 * 3 * 48 * 48), [2, 3, 48, 48]);
    const two = (await session.run({ [input]: zeros }))[output]?.data as Float32Array;
    assert.equal(two.length, 20, 'ten classes, any batch size');
    assert.ok(Math.abs(two.subarray(0, 10).reduce((a, b) => a + b, 0) - 1) < 1e-4, 'probabilities');

    // The first 400 validation digits with nothing but the exported file and this test's own preprocessing, against
    // what the engine stored for them.
    const details = JSON.parse(readFileSync(join(dir, 'output/best_model/eval_details.json'), 'utf8')) as {
      true_labels: number[];
      pred_scores: number[][];
    };
    assert.equal(details.true_labels.length, valCount);
    let right = 0;
    let same = 0;
    const count = 400;
    for (let i = 0; i < count; i += 1) {
      const image = new ort.Tensor('float32', normalized(enlarged(digit('t10k', i), 28, 54), 54, 48), [1, 3, 48, 48]);
      const scores = Array.from((await session.run({ [input]: image }))[output]?.data as Float32Array);
      const best = scores.indexOf(Math.max(...scores));
      const stored = details.pred_scores[i] ?? [];
      if (best === details.true_labels[i]) right += 1;
      if (best === stored.indexOf(Math.max(...stored))) same += 1;
    }
    assert.ok(right / count >= 0.97, `accuracy of the exported file: ${right / count}`);
    assert.ok(same / count >= 0.99, `onnxruntime and the engine agree on ${same} of ${count}`);
  });

  it('exports int8 within half a point of fp32, measured by onnxruntime on all validation digits', async () => {
    const save_dir = join(dir, 'int8');
    await server.ok('POST', '/project/task/export', { tid, type: 'infer', save_dir, quant: true });
    const done = await server.until(120, 'GET', '/project/task/export', { tid }, (a) => a.export_status !== 6);
    assert.equal(done.export_status, 7, JSON.stringify(done));
    const { quant_result } = await server.ok('GET', '/project/task/export', { tid, quant: 'result' });
    const { before, after } = quant_result;
    assert.ok(before.acc1 >= 0.985 && before.acc5 >= after.acc5 - 0.005, JSON.stringify(quant_result));
    assert.ok(before.acc1 - after.acc1 <= 0.005, JSON.stringify(quant_result));
    const { measured } = done;
    assert.equal(measured.images, valCount);
    assert.ok(measured.difference <= 1e-4, `differs from the engine by ${measured.difference}`);
    assert.ok(measured.model.bytes < 0.27 * measured.fp32.bytes, JSON.stringify(measured));

    // What the server says, with nothing but the file and this test's own preprocessing.
    const session = await ort.InferenceSession.create(join(save_dir, 'inference_model/model.onnx'));
    const labels = JSON.parse(readFileSync(join(dir, 'output/best_model/eval_details.json'), 'utf8')).true_labels;
    const count = 400;
    let right = 0;
    for (let i = 0; i < count; i += 1) {
      const image = new ort.Tensor('float32', normalized(enlarged(digit('t10k', i), 28, 54), 54, 48), [1, 3, 48, 48]);
      const result = await session.run({ [session.inputNames[0] ?? '']: image });
      const scores = Array.from(result[session.outputNames[0] ?? '']?.data as Float32Array);
      if (scores.indexOf(Math.max(...scores)) === labels[i]) right += 1;
    }
    assert.ok(right / count >= 0.97, `accuracy of the int8 file: ${right / count}`);
  });

  it('keeps everything over a restart', async () => {
    await server.stop();
    const again = await TestServer.start({
      folder: server.folder,
      args: ['--data_root', mnistFolder(trainCount, valCount)],
    });
    server = again;
    assert.equal((await server.ok('GET', '/project/task', { tid })).task_status, 7);
    assert.equal((await server.ok('GET', '/model', { type: 'exported' })).exported_models.length, 1);
    const next = await server.ok('POST', '/dataset', { name: 'next', desc: '', dataset_type: 'classification' });
    assert.equal(next.did, 'D0002');
  });

  it('lists what a script would delete, and deletes it', async () => {
    await server.fails('conflict', 'DELETE', '/dataset', { did });
    mkdirSync(join(server.folder, 'canary'));
    writeFileSync(join(server.folder, 'canary/file'), 'outside');
    await server.ok('DELETE', '/project/task', { tid });
    await server.ok('DELETE', '/project', { pid });
    await server.ok('DELETE', '/dataset', { did });
    assert.ok(!existsSync(dir));
    assert.ok(existsSync(join(server.folder, 'canary/file')));
    assert.ok(existsSync(join(mnistFolder(trainCount, valCount), 'labels.txt')), 'the source is never touched');
  });
});
