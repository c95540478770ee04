/** Model slimming over HTTP with real compute: analysis, stops and crashes in the middle, pruned training, its model in use. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import * as ort from 'onnxruntime-node';
import { colourFolder } from './lib/pictures.js';
import { hosts, type Json, project, TestServer } from './lib/server.js';

const params: Json = {
  model: 'ResNet18',
  batch_size: 16,
  num_epochs: 2,
  learning_rate: 0.02,
  save_interval_epochs: 1,
  image_shape: [64, 64],
  pretrain_weights: null,
};

describe('pruning', { concurrency: false }, () => {
  let server: TestServer;
  let pid = '';
  let tid = '';
  let dir = '';
  let pruned = '';

  before(async () => {
    server = await TestServer.start();
    const images = colourFolder(join(server.folder, 'images'), ['red', 'green', 'blue'], 100, 64);
    ({ pid } = await project(server, images, { val_split: 0.4, test_split: 0.1, seed: 1 }));
    ({ tid } = await server.ok('POST', '/project/task', { pid, train: params }));
    dir = join(server.workspace, 'projects', pid, tid);
  });
  after(() => server.remove());

  const log = async (): Promise<Json | null> =>
    (await server.ok('GET', '/project/task/metrics', { tid, type: 'prune' })).prune_log;

  /** Starts the analysis; answers its first progress. */
  async function analyse(): Promise<number> {
    await server.ok('POST', '/project/task/prune', { tid });
    return progress(1);
  }

  /** Waits until that many evaluations are done; answers how many are. */
  async function progress(least: number): Promise<number> {
    const { prune_log } = await server.until(
      120,
      'GET',
      '/project/task/metrics',
      { tid, type: 'prune' },
      (a) => a.prune_log?.current != null && Number(a.prune_log.current) >= least,
      20,
    );
    return Number(prune_log.current);
  }

  const ended = (seconds = 300): Promise<Json> =>
    server.until(seconds, 'GET', '/project/task/prune', { tid }, (a) => a.prune_status !== 1, 50);

  const trained = async (task: string, state = 4): Promise<void> => {
    const busy = [3, 15];
    const done = await server.until(300, 'GET', '/project/task', { tid: task }, (a) => !busy.includes(a.task_status));
    assert.equal(done.task_status, state, JSON.stringify(done));
  };

  it('refuses what has no model yet, and trains the parent', async () => {
    await server.fails('not_ready', 'POST', '/project/task/prune', { tid });
    await server.fails('conflict', 'PUT', '/project/task/prune', { tid, act: 'stop' });
    assert.equal(await log(), null);
    await server.ok('POST', '/project/task/train', { tid });
    const during = await server.call('POST', '/project/task/prune', { tid });
    // No model before the first evaluation, later no analysis beside the training.
    assert.ok(['not_ready', 'conflict'].includes(during.code), JSON.stringify(during));
    await trained(tid);
    const early = await server.ok('POST', '/project/task', { pid, parent_id: tid });
    const answer = await server.fails('not_ready', 'POST', '/project/task/train', { tid: early.tid });
    assert.match(answer.message, /no pruning analysis/);
    await server.ok('DELETE', '/project/task', { tid: early.tid });
  });

  it('analyses, stops, and goes on without losing layers', async () => {
    await analyse();
    await server.fails('conflict', 'POST', '/project/task/prune', { tid });
    await server.fails('conflict', 'POST', '/project/task/train', { tid });
    assert.equal((await server.ok('GET', '/project/task', { tid })).task_status, 14);
    const seen = await log();
    assert.equal(seen?.log_file, join(dir, 'prune/out.log'));
    assert.match(String(seen?.iters), /^\d+$/);
    assert.match(String(seen?.progress), /^\d+\.\d\d%$/);
    const done = await progress(20);
    await server.ok('PUT', '/project/task/prune', { tid, act: 'stop' });
    assert.equal((await server.ok('GET', '/project/task/prune', { tid })).prune_status, 4);
    assert.equal((await server.ok('GET', '/project/task', { tid })).task_status, 4);
    await server.fails('not_ready', 'GET', '/project/task/metrics', { tid, type: 'sensitivities' });
    const again = await analyse();
    assert.ok(again >= done - (done % 9), `it began again at ${again} after ${done}`);
  });

  it('survives the death of its compute host and of the server', async () => {
    const before = await progress(40);
    for (const host of hosts(server.child.pid ?? 0)) process.kill(host, 'SIGKILL');
    const failed = await ended();
    assert.equal(failed.prune_status, 3, JSON.stringify(failed));
    assert.match(failed.message, /SIGKILL|killed|signal/i);
    assert.equal((await server.ok('GET', '/project/task', { tid })).task_status, 4);
    assert.ok((await analyse()) >= before - (before % 9));
    const half = await progress(60);
    await server.stop('SIGKILL');
    server = await TestServer.start({ folder: server.folder });
    assert.equal((await server.ok('GET', '/project/task', { tid })).task_status, 14);
    assert.ok((await progress(1)) >= half - (half % 9));
    const done = await ended();
    assert.equal(done.prune_status, 2, JSON.stringify(done));
    assert.equal((await server.ok('GET', '/project/task', { tid })).task_status, 4);
    const last = await log();
    assert.deepEqual([last?.current, last?.progress, last?.eta], [last?.iters, '100.00%', '0:00:00']);
    assert.match(
      readFileSync(join(dir, 'prune/out.log'), 'utf8'),
      /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[INFO\]\tTotal evaluate iters=\d+, current=\d+, progress=\d+\.\d\d%, eta=\d+:\d\d:\d\d/m,
    );
  });

  it('gives the curve of pruned share and loss', async () => {
    const answer = await server.ok('GET', '/project/task/metrics', { tid, type: 'sensitivities' });
    const points = Object.entries(answer.sensitivities_loss_img as Record<string, number>).map(
      ([share, loss]) => [Number(share), loss] as const,
    );
    assert.ok(points.length >= 1 && points.length <= 19);
    points.sort((a, b) => a[1] - b[1]);
    for (const [at, [share, loss]] of points.entries()) {
      assert.ok(share >= 0 && share < 1, `${share}`);
      assert.ok(Math.abs(loss * 20 - Math.round(loss * 20)) < 1e-9 && loss >= 0.05 && loss <= 0.95, `${loss}`);
      assert.ok(at === 0 || share > (points[at - 1]?.[0] ?? 1), 'a larger loss allows more');
    }
    const picture = await server.ok('GET', '/file', { path: join(dir, 'prune/sensitivities.png') });
    assert.equal(Buffer.from(picture.img_data, 'base64').subarray(1, 4).toString(), 'PNG');
    const table = JSON.parse(readFileSync(join(dir, 'prune/sensitivities.json'), 'utf8')) as Json;
    assert.ok(Object.keys(table).length > 0);
  });

  it('trains the pruned model, stops and resumes it', async () => {
    ({ tid: pruned } = await server.ok('POST', '/project/task', { pid, parent_id: tid, train: { num_epochs: 99 } }));
    const { train } = await server.ok('GET', '/project/task/params', { tid: pruned });
    assert.deepEqual([train.num_epochs, train.model], [2, 'ResNet18']);
    await server.ok('POST', '/project/task/params', { tid: pruned, train: { num_epochs: 3, learning_rate: 0.005 } });
    await server.fails('invalid_argument', 'POST', '/project/task/train', { tid: pruned, pruned_flops: 1.5 });
    await server.fails('invalid_argument', 'POST', '/project/task/train', { tid, pruned_flops: 0.4 });
    await server.ok('POST', '/project/task/train', { tid: pruned, pruned_flops: 0.4 });
    assert.equal((await server.ok('GET', '/project/task', { tid: pruned })).task_status, 15);
    await server.fails('conflict', 'DELETE', '/project/task', { tid });
    const metrics = { tid: pruned, type: 'train' };
    const began = await server.until(
      120,
      'GET',
      '/project/task/metrics',
      metrics,
      (a) => a.train_log.eval_metrics?.Epoch >= 1,
      20,
    );
    const { pruning } = began.train_log;
    const share = 1 - pruning.flops_after / pruning.flops_before;
    assert.ok(Math.abs(share - 0.4) < 0.08, `${share} of the FLOPs are gone`);
    assert.ok(Math.abs(pruning.pruned_flops - share) < 1e-9);
    assert.ok(pruning.parameters_after < pruning.parameters_before);
    const running = await server.ok('GET', '/project/task', { tid: pruned });
    if (running.task_status === 15) {
      await server.ok('PUT', '/project/task/train', { tid: pruned, act: 'stop' });
      await server.ok('PUT', '/project/task/train', { tid: pruned, act: 'resume' });
      assert.equal((await server.ok('GET', '/project/task', { tid: pruned })).task_status, 15);
    }
    await trained(pruned);
    assert.deepEqual((await server.ok('GET', '/project/task/metrics', metrics)).train_log.pruning, pruning);
    await server.stop();
    server = await TestServer.start({ folder: server.folder });
    assert.deepEqual((await server.ok('GET', '/project/task/metrics', metrics)).train_log.pruning, pruning);
    const best = await server.ok('GET', '/project/task/metrics', { tid: pruned, type: 'eval' });
    assert.ok(best.eval_metric.acc1 >= 0.9, `${best.eval_metric.acc1}`);
  });

  it('evaluates, predicts and exports the smaller network', async () => {
    await server.ok('POST', '/project/task/evaluate', { tid: pruned });
    const report = await server.until(
      60,
      'GET',
      '/project/task/evaluate',
      { tid: pruned },
      (a) => a.evaluate_status !== 11,
    );
    assert.equal(report.evaluate_status, 5, JSON.stringify(report));
    await server.ok('POST', '/project/task/predict', { tid: pruned });
    const predicted = await server.until(
      60,
      'GET',
      '/project/task/predict',
      { tid: pruned },
      (a) => a.predict_status !== 0,
    );
    assert.equal(predicted.predict_status, 1, JSON.stringify(predicted));
    assert.ok(predicted.predict_num > 0 && predicted.predict_num === predicted.total_num);
    const size = async (task: string): Promise<number> => {
      const save_dir = join(server.workspace, 'projects', pid, task, 'export_model');
      await server.ok('POST', '/project/task/export', { tid: task, type: 'infer', save_dir });
      const done = await server.until(60, 'GET', '/project/task/export', { tid: task }, (a) => a.export_status !== 6);
      assert.equal(done.export_status, 7, JSON.stringify(done));
      const file = join(save_dir, 'inference_model/model.onnx');
      assert.ok(existsSync(file));
      const session = await ort.InferenceSession.create(file);
      const input = new ort.Tensor('float32', new Float32Array(3 * 64 * 64), [1, 3, 64, 64]);
      const output = await session.run({ [session.inputNames[0] ?? '']: input });
      assert.equal(output[session.outputNames[0] ?? '']?.data.length, 3);
      return statSync(file).size;
    };
    const [whole, small] = [await size(tid), await size(pruned)];
    assert.ok(small < whole * 0.8, `${small} of ${whole} bytes`);
  });

  it('keeps working when the parent is gone', async () => {
    await server.ok('DELETE', '/project/task', { tid });
    await server.ok('PUT', '/project/task/train', { tid: pruned, act: 'resume', epoch: 2 });
    await trained(pruned);
    const answer = await server.fails('not_ready', 'POST', '/project/task/train', { tid: pruned });
    assert.match(answer.message, /is deleted/);
  });
});
