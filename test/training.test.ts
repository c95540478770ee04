/** What trainings do over HTTP beside the straight way: resume, early stop, start weights, weights that are not there. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { selfSigned } from './lib/certificate.js';
import { colourFolder } from './lib/pictures.js';
import { type Json, project, TestServer } from './lib/server.js';
import { readSafetensors, type Tensor, torchFile } from './lib/weights-files.js';

const params: Json = {
  model: 'MobileNetV3_small',
  batch_size: 8,
  num_epochs: 2,
  learning_rate: 0.02,
  save_interval_epochs: 1,
  image_shape: [32, 32],
  precision: 'fp32',
  pretrain_weights: null,
};
const working = (answer: Json): boolean => answer.task_status === 3;

/** An https folder of files with its SHA256SUMS. */
function mirrorServer(files: Record<string, Buffer>, asked: string[]) {
  const sums = Object.entries(files).map(([n, data]) => `${createHash('sha256').update(data).digest('hex')}  ${n}\n`);
  const { cert, key } = selfSigned();
  const server = createServer({ cert, key }, (request, response) => {
    const name = decodeURIComponent((request.url ?? '').replace('/weights/', ''));
    asked.push(name);
    const data = name === 'SHA256SUMS' ? Buffer.from(sums.join('')) : files[name];
    if (data === undefined) response.statusCode = 404;
    response.end(data);
  });
  return { server, cert };
}

describe('trainings over HTTP', { concurrency: false }, () => {
  let server: TestServer;
  let mirror: Server;
  let pid = '';
  /** A task that was trained without interruption. */
  let whole = '';
  const asked: string[] = [];
  const remote: Record<string, Buffer> = {};

  const pathOf = async (tid: string): Promise<string> =>
    (await server.ok('GET', '/workspace', { struct: 'task', id: tid, attr_list: ['path'] })).attr.path as string;
  const weightsOf = async (tid: string, folder = 'best_model'): Promise<Map<string, Tensor>> =>
    readSafetensors(join(await pathOf(tid), 'output', folder, 'model.safetensors'));
  const created = async (train: Json): Promise<string> =>
    (await server.ok('POST', '/project/task', { pid, train: { ...params, ...train } })).tid;
  const metrics = async (tid: string): Promise<Json> =>
    (await server.ok('GET', '/project/task/metrics', { tid, type: 'train' })).train_log;

  async function trained(train: Json, status = 4): Promise<string> {
    const tid = await created(train);
    await server.ok('POST', '/project/task/train', { tid });
    const end = await server.until(180, 'GET', '/project/task', { tid }, (a) => !working(a));
    assert.equal(end.task_status, status, JSON.stringify(end));
    return tid;
  }

  before(async () => {
    const made = mirrorServer(remote, asked);
    mirror = made.server;
    await new Promise<void>((done) => mirror.listen(0, '127.0.0.1', done));
    const url = `https://localhost:${(mirror.address() as AddressInfo).port}/weights`;
    server = await TestServer.start({ args: ['--weights_mirror', url] });
    const authority = join(server.folder, 'authority.pem');
    writeFileSync(authority, made.cert);
    await server.stop();
    server = await TestServer.start({
      folder: server.folder,
      args: ['--weights_mirror', url, '--weights_dir', join(server.folder, 'weights')],
      env: { NODE_EXTRA_CA_CERTS: authority },
    });
    const images = colourFolder(join(server.folder, 'images'), ['red', 'green', 'blue'], 60, 32);
    ({ pid } = await project(server, images, { val_split: 0.2, test_split: 0.1, seed: 5 }));
    whole = await trained({});
  });
  after(async () => {
    mirror.close();
    await server.remove();
  });

  it('stopped in the first epoch and resumed without a saved epoch, gives the uninterrupted weights', async () => {
    const tid = await created({});
    await server.ok('POST', '/project/task/train', { tid });
    await server.until(
      60,
      'GET',
      '/project/task/metrics',
      { tid, type: 'train' },
      (a) => a.train_log.train_metrics,
      20,
    );
    await server.ok('PUT', '/project/task/train', { tid, act: 'stop' });
    const stopped = await server.ok('GET', '/project/task', { tid, resume: '' });
    assert.equal(stopped.task_status, 8);
    assert.match(stopped.message, /^Stopped after 0 of 2 epochs; there is no best model yet\.$/);
    assert.deepEqual([stopped.resumable, stopped.max_saved_epochs], [false, -1]);
    await server.ok('PUT', '/project/task/train', { tid, act: 'resume' });
    const end = await server.until(180, 'GET', '/project/task', { tid }, (a) => !working(a));
    assert.equal(end.task_status, 4, JSON.stringify(end));
    for (const epoch of ['epoch_1', 'epoch_2']) {
      const [expected, actual] = [await weightsOf(whole, epoch), await weightsOf(tid, epoch)];
      assert.deepEqual([...actual.keys()], [...expected.keys()]);
      for (const [name, tensor] of expected) assert.deepEqual(actual.get(name), tensor, `${epoch} ${name}`);
    }
  });

  it('resumed from a saved epoch, gives the same weights once more', async () => {
    const tid = await trained({});
    await server.fails('conflict', 'PUT', '/project/task/train', { tid, act: 'resume' });
    await server.fails('not_ready', 'PUT', '/project/task/train', { tid, act: 'resume', epoch: 7 });
    await server.ok('PUT', '/project/task/train', { tid, act: 'resume', epoch: '1' });
    await server.until(180, 'GET', '/project/task', { tid }, (a) => !working(a));
    assert.deepEqual(await weightsOf(tid, 'epoch_2'), await weightsOf(whole, 'epoch_2'));
    const log = readFileSync(join(await pathOf(tid), 'out.log'), 'utf8');
    assert.equal(log.match(/Epoch 2 finished/g)?.length, 2, 'the log is continued');
    assert.equal(log.match(/Epoch 1 finished/g)?.length, 1);
  });

  it('ends early when the results become no better', async () => {
    // At such a rate nothing is learnt, so the second evaluation is no better than the first.
    const tid = await trained({ num_epochs: 9, learning_rate: 1e-9, early_stop: true, early_stop_patience: 1 });
    const { message } = await server.ok('GET', '/project/task', { tid });
    assert.match(message, /^Ended early after 2 of 9 epochs, .*; the best model is that of epoch 1\.$/);
    const all = await server.ok('GET', '/project/task/metrics', { tid, type: 'eval_all' });
    assert.deepEqual(Object.keys(all.epoch_result_dict), ['1', '2']);
    assert.equal(all.best_epoch, 1);
    assert.equal((await metrics(tid)).train_stage, 'Train Complete');
  });

  it('starts from a PyTorch state dict; layers that do not fit are told by name and shape', async () => {
    const tensors = await weightsOf(whole);
    const head = [...tensors.keys()].filter((name) => /^classifier\.3\./.test(name));
    assert.deepEqual(head.sort(), ['classifier.3.bias', 'classifier.3.weight'], 'the names of torchvision');
    // As published: a head of a thousand classes.
    tensors.set('classifier.3.weight', { shape: [1000, 1024], values: new Float32Array(1000 * 1024) });
    tensors.set('classifier.3.bias', { shape: [1000], values: new Float32Array(1000) });
    const file = join(server.folder, 'mobilenet_v3_small-047dcff4.pth');
    writeFileSync(file, torchFile(tensors));
    const still = { num_epochs: 1, learning_rate: 1e-9, pretrain_weights: file };
    const tid = await trained(still);
    const result = await weightsOf(tid);
    const fresh = await weightsOf(await trained({ ...still, pretrain_weights: null, seed: 3 }));
    let compared = 0;
    for (const [name, { values }] of tensors) {
      if (!name.startsWith('features.') || !name.endsWith('.0.weight')) continue;
      compared += 1;
      const far = (other: Tensor | undefined): number =>
        values.reduce((most, value, at) => Math.max(most, Math.abs(value - (other?.values[at] ?? 0))), 0);
      assert.ok(far(result.get(name)) < 1e-5, `${name} is that of the file`);
      assert.ok(far(fresh.get(name)) > 1e-2, `${name} would be another one without it`);
    }
    assert.ok(compared > 20);
    const notes = ((await metrics(tid)).notes as string[]).join('\n');
    assert.match(notes, /classifier\.3\.weight/);
    assert.match(notes, /1000.*1024/);
  });

  it('without the weights it asked for is in the download-failed state, with the place to put them', async () => {
    const tid = await trained({ pretrain_weights: 'IMAGENET' }, 9);
    const task = await server.ok('GET', '/project/task', { tid });
    assert.match(task.message, /mirror has no weights MobileNetV3_small_IMAGENET.*npm run weights -- add FILE/);
    const log = await metrics(tid);
    assert.equal(log.download_status, 'Failed');
    assert.equal(log.train_error, task.message);
    assert.equal(log.train_metrics, null);
    const shown = await server.ok('GET', '/project/task/params', { pid, model_type: 'MobileNetV3_small' });
    assert.equal(shown.train.pretrain_weights, null, 'no name is suggested whose weights are not there');
    mkdirSync(join(server.folder, 'weights'), { recursive: true });
    writeFileSync(join(server.folder, 'weights/MobileNetV3_small_IMAGENET.pth'), torchFile(await weightsOf(whole)));
    await server.ok('POST', '/project/task/train', { tid });
    const end = await server.until(180, 'GET', '/project/task', { tid }, (a) => !working(a));
    assert.equal(end.task_status, 4, 'the same task trains once they are there');
  });

  it('fetches weights from the configured TLS mirror, checked against its SHA256SUMS', async () => {
    // The sums are made when the mirror starts, so this file has to be announced by a new one.
    const data = torchFile(await weightsOf(whole));
    const again = mirrorServer({ 'MobileNetV3_large_IMAGENET.pth': data }, asked);
    await new Promise<void>((done) => again.server.listen(0, '127.0.0.1', done));
    const url = `https://localhost:${(again.server.address() as AddressInfo).port}/weights/`;
    const authority = join(server.folder, 'second.pem');
    writeFileSync(authority, again.cert);
    const weights = join(server.folder, 'fetched');
    const options = ['--weights_mirror', url, '--weights_dir', weights];
    const restart = async (env: Record<string, string>): Promise<void> => {
      await server.stop();
      server = await TestServer.start({ folder: server.folder, args: options, env });
    };
    try {
      await restart({});
      asked.length = 0;
      const distrusted = await trained({ model: 'MobileNetV3_large', pretrain_weights: 'IMAGENET' }, 9);
      assert.match(
        (await server.ok('GET', '/project/task', { tid: distrusted })).message,
        /self-signed certificate.*Put the file to .*MobileNetV3_large_IMAGENET/,
      );
      assert.deepEqual(asked, [], 'nothing is asked of a server without a trusted certificate');
      await restart({ NODE_EXTRA_CA_CERTS: authority });
      // Of a small network, so most layers do not fit; that is told, not refused.
      const tid = await trained({ model: 'MobileNetV3_large', pretrain_weights: 'IMAGENET', num_epochs: 1 });
      assert.deepEqual(asked, ['SHA256SUMS', 'MobileNetV3_large_IMAGENET.pth']);
      assert.ok(readFileSync(join(weights, 'MobileNetV3_large_IMAGENET/model.pth')).equals(data));
      assert.equal((await metrics(tid)).download_status, 'Done');
      await trained({ model: 'MobileNetV3_large', pretrain_weights: 'IMAGENET', num_epochs: 1 });
      assert.equal(asked.length, 2, 'what was fetched once is there');
    } finally {
      again.server.close();
    }
  });
});
