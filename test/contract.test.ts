/** The wire contract as a client script meets it: a real server, JSON bodies on every method, query strings, a trained task. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { colourFolder } from './lib/pictures.js';
import { type Json, project, send, TestServer } from './lib/server.js';

const params: Json = {
  model: 'MobileNetV3_small',
  batch_size: 8,
  num_epochs: 1,
  learning_rate: 0.02,
  save_interval_epochs: 1,
  image_shape: [32, 32],
  pretrain_weights: null,
};

describe('the wire contract', { concurrency: false }, () => {
  let server: TestServer;
  let did = '';
  let pid = '';
  let tid = '';
  let dir = '';

  const query = async (path: string): Promise<Json> =>
    JSON.parse((await send(server.port, 'GET', path)).body.toString());

  before(async () => {
    server = await TestServer.start();
    const images = colourFolder(join(server.folder, 'images'), ['red', 'green', '蓝色'], 30, 32);
    ({ did, pid } = await project(server, images));
  });
  after(() => server.remove());

  it('reads arguments from the body on every method, key by key before the query', async () => {
    const one = await query(`/dataset?did=${did}`);
    assert.deepEqual(await server.ok('GET', '/dataset', { did }), one);
    const both = await send(server.port, 'GET', `/project/task/params?pid=${pid}&model_type=ResNet18`, { pid });
    assert.equal(JSON.parse(both.body.toString()).train.model, 'ResNet18');
    const wins = await send(server.port, 'GET', '/dataset?did=D0099', { did });
    assert.equal(JSON.parse(wins.body.toString()).id, did);
    const asNull = await send(server.port, 'GET', `/dataset?did=${did}`, Buffer.from('null'), {
      'content-type': 'application/json',
    });
    assert.equal(JSON.parse(asNull.body.toString()).id, did, 'a literal null is no body');
    for (const list of ['path,name', 'path&attr_list=name', '["path","name"]']) {
      const { attr } = await query(`/workspace?struct=project&id=${pid}&attr_list=${encodeURI(list)}`);
      assert.deepEqual(Object.keys(attr), ['path', 'name'], list);
    }
    const split = await send(server.port, 'PUT', `/dataset/split?did=${did}&val_split=0.2&test_split=0.1`);
    assert.deepEqual(JSON.parse(split.body.toString()), { status: 1 });
  });

  it('answers trailing slashes, HEAD, OPTIONS and wrong methods as clients expect', async () => {
    assert.equal((await query('/workspace/')).dirname, server.workspace);
    const head = await send(server.port, 'HEAD', '/project');
    assert.deepEqual([head.status, head.body.length], [200, 0]);
    const options = await send(server.port, 'OPTIONS', '/project/task/train');
    assert.equal(options.status, 204);
    assert.equal(options.headers.allow, 'POST, PUT, OPTIONS');
    await server.fails('unsupported', 'DELETE', '/workspace');
    const unknown = await send(server.port, 'GET', '/nowhere');
    assert.deepEqual([unknown.status, JSON.parse(unknown.body.toString()).status], [404, -1]);
  });

  it('creates with an `id` beside `did`, and takes type numbers and remote segmentation', async () => {
    const made = await server.ok('POST', '/dataset', { name: 'a<b> "c"', dataset_type: 'remote_segmentation' });
    assert.equal(made.id, made.did);
    const { attr } = await server.ok('GET', '/dataset', { did: made.did });
    assert.deepEqual([attr.type, attr.remote, attr.desc], ['segmentation', true, '']);
    const { pid: numbered } = await server.ok('POST', '/project', { name: 'n', desc: '', project_type: 1, path: '/x' });
    assert.equal((await server.ok('GET', '/project', { id: numbered })).attr.type, 'detection');
    const empty = join(server.folder, 'empty');
    mkdirSync(empty);
    await server.ok('PUT', '/dataset', { did: made.did, path: empty });
    const checked = await server.until(30, 'GET', '/dataset', { did: made.did }, (a) => a.dataset_status !== 1);
    assert.equal(checked.dataset_status, 2, JSON.stringify(checked));
    assert.match(checked.message, /JPEGImages/);
    await server.fails('invalid_argument', 'POST', '/dataset', { name: 'x', dataset_type: 'audio' });
  });

  it('sets attributes by PUT and by its alias POST, all or none', async () => {
    const set = (attr_dict: Json, method: 'PUT' | 'POST' = 'PUT') =>
      [method, '/workspace', { struct: 'project', id: pid, attr_dict }] as const;
    await server.ok(...set({ name: '项目', desc: 'd' }, 'POST'));
    const refused = await server.fails('invalid_argument', ...set({ desc: 'lost', path: '/x' }));
    assert.equal(refused.context.field, 'attr_dict.path');
    const unknown = await server.fails('invalid_argument', ...set({ colour: 'x' }));
    assert.equal(unknown.context.field, 'attr_dict.colour');
    const { attr } = await server.ok('GET', '/project', { id: pid });
    assert.deepEqual([attr.name, attr.desc, attr.tasks, attr.task_status], ['项目', 'd', [], {}]);
  });

  it('suggests parameters, and stores a task from text, an object or nothing', async () => {
    const { train: suggested } = await server.ok('GET', '/project/task/params', { pid, model_type: 'ResNet50' });
    for (const key of ['backbone', 'warmup_steps']) assert.ok(!(key in suggested), key);
    assert.equal(suggested.cuda_visible_devices, '');
    const { tid: bare } = await server.ok('POST', '/project/task', {
      pid,
      train: { model: 'ResNet50', num_epochs: 2 },
    });
    const { train: stored } = await server.ok('GET', '/project/task/params', { tid: bare });
    for (const [key, value] of Object.entries(suggested)) {
      if (key === 'num_epochs' || key === 'cpu_num') continue;
      assert.deepEqual(stored[key], value, `${key}: what was left out is the project's default`);
    }
    const text = JSON.stringify({ ...params, learning_rate: '0.02', brightness: 'off', hue_range: 'undefined', x: 1 });
    ({ tid } = await server.ok('POST', '/project/task', { pid, train: text, desc: 'first' }));
    await server.ok('POST', '/project/task/params', { tid, train: '{"contrast_prob":"0.25","image_shape":"32,32"}' });
    const { train } = await server.ok('GET', '/project/task/params', { tid });
    assert.deepEqual(
      [train.learning_rate, train.brightness, train.hue_range, train.contrast_prob, train.image_shape, train.x],
      [0.02, false, 18, 0.25, [32, 32], undefined],
    );
    await server.fails('invalid_argument', 'POST', '/project/task', { pid, train: '{"num_epochs": 0}' });
    await server.ok('DELETE', '/project/task', { tid: bare });
    ({ path: dir } = (await server.ok('GET', '/project/task', { pid })).tasks[0]);
  });

  it('tells what was never started with null', async () => {
    const { train_log: log } = await server.ok('GET', '/project/task/metrics', { tid, type: 'train' });
    for (const key of ['eta', 'train_metrics', 'eval_metrics', 'download_status', 'train_error', 'train_stage'])
      assert.equal(log[key], null, key);
    assert.deepEqual([log.eval_done, log.log_file], [false, join(dir, 'out.log')]);
    const none = await server.ok('GET', '/project/task/metrics', { tid, type: 'eval_all' });
    const { status: _, ...shown } = none;
    assert.deepEqual(shown, { key: null, epoch_result_dict: {}, best_epoch: -1, best_result: -1 });
    assert.equal((await server.ok('GET', '/project/task/metrics', { tid, type: 'prune' })).prune_log, null);
    const evaluated = await server.ok('GET', '/project/task/evaluate', { tid });
    assert.deepEqual([evaluated.evaluate_status, evaluated.result], [null, null]);
    assert.equal((await server.ok('GET', '/project/task/export', { tid })).export_status, null);
    assert.equal((await server.ok('GET', '/project/task/prune', { tid })).prune_status, null);
    const predicted = await server.ok('GET', '/project/task/predict', { tid });
    assert.deepEqual([predicted.predict_status, predicted.predict_num, predicted.total_num], [null, 0, 0]);
    assert.deepEqual((await server.ok('GET', '/project/task/export', { tid, quant: 'result' })).quant_result, {});
    for (const [method, path, body] of [
      ['POST', '/project/task/evaluate', { tid }],
      ['POST', '/project/task/predict', { tid }],
      ['POST', '/project/task/export', { tid, type: 'infer', save_dir: join(dir, 'export_model') }],
      ['POST', '/project/task/prune', { tid }],
      ['GET', '/project/task/metrics', { tid, type: 'eval' }],
      ['GET', '/project/task/metrics', { tid, type: 'sensitivities' }],
      ['GET', '/project/task/vdl', { tid }],
    ] as const)
      await server.fails('not_ready', method, path, body);
    await server.fails('conflict', 'PUT', '/project/task/train', { tid, act: 'stop' });
    const sheet = await server.call('GET', '/project/task/evaluate/file', { tid });
    assert.deepEqual([sheet.status, sheet.path], [-1, null]);
  });

  it('refuses while it trains, then tells the states of lists, projects and tasks', async () => {
    await server.ok('POST', '/project/task/train', { tid });
    for (const [method, path, body] of [
      ['POST', '/project/task/train', { tid }],
      ['PUT', '/project/task/train', { tid, act: 'resume' }],
      ['DELETE', '/project/task', { tid }],
      ['DELETE', '/project', { pid }],
      ['PUT', '/dataset/split', { did, val_split: 0.2, test_split: 0.1 }],
      ['POST', '/project/task/params', { tid, train: { num_epochs: 3 } }],
    ] as const)
      await server.fails('conflict', method, path, body);
    const end = await server.until(120, 'GET', '/project/task', { tid }, (a) => a.task_status !== 3);
    assert.equal(end.task_status, 4, JSON.stringify(end));
    const { tasks } = await server.ok('GET', '/project/task');
    assert.deepEqual([tasks[0].id, tasks[0].status, tasks[0].pid, tasks[0].name], [tid, 4, pid, '']);
    const { attr } = await server.ok('GET', '/project', { id: pid });
    assert.deepEqual([attr.tasks, attr.task_status], [[4], { [tid]: { status: 4 } }]);
    assert.match((await server.ok('GET', '/project/task/vdl', { tid })).url, /^127\.0\.0\.1:\d+\/board\/T\d+$/);
    const eval1 = await server.ok('GET', '/project/task/metrics', { tid, type: 'eval' });
    assert.deepEqual(eval1.eval_metric, eval1.eval_metrics);
    const tail = await server.ok('GET', '/project/task/train/file', { path: join(dir, 'out.log') });
    assert.ok(tail.log.length <= 50 && tail.log.at(-1).endsWith('\n'));
    const raw = await send(server.port, 'GET', '/file', { path: join(dir, 'out.log') });
    assert.equal(raw.body.toString(), readFileSync(join(dir, 'out.log'), 'utf8'));
    const lines = await send(
      server.port,
      'GET',
      '/file',
      { path: join(dir, 'out.log') },
      { accept: 'application/json' },
    );
    assert.equal(JSON.parse(lines.body.toString()).log.join(''), raw.body.toString());
  });

  it('evaluates epochs given as text, and exports by the quick start’s word', async () => {
    await server.ok('POST', '/project/task/evaluate', { tid, epoch: '1', topk: 2, score_thresh: null });
    const done = await server.until(60, 'GET', '/project/task/evaluate', { tid }, (a) => a.evaluate_status !== 11);
    assert.deepEqual([done.evaluate_status, done.result.epoch, done.result.topk], [5, 1, 2]);
    assert.deepEqual(done.result.label_list, ['green', 'red', '蓝色']);
    const stored = await server.call('GET', '/project/task/evaluate/file', { path: done.path });
    assert.deepEqual(stored, done.result, 'the report itself, without status');
    const save_dir = join(dir, 'export_model');
    const lite = await server.fails('invalid_argument', 'POST', '/project/task/export', {
      tid,
      type: 'lite',
      save_dir,
    });
    assert.equal(lite.context.field, 'model_path');
    await server.fails('forbidden_path', 'POST', '/project/task/export', { tid, type: 'infer', save_dir: '/etc/x' });
    await server.ok('POST', '/project/task/export', { tid, type: 'inference', save_dir });
    const { emid } = await server.ok('POST', '/model', {
      pid,
      tid,
      name: 'm',
      type: 'exported',
      path: save_dir,
      exported_type: 0,
    });
    const end = await server.until(60, 'GET', '/project/task/export', { tid }, (a) => a.export_status !== 6);
    assert.equal(end.export_status, 7, JSON.stringify(end));
    assert.equal((await server.ok('GET', '/project/task', { tid })).task_status, 7);
    const model = await server.ok('GET', '/model', { mid: emid });
    assert.deepEqual(model.dataset_attr.labels, ['green', 'red', '蓝色']);
    assert.deepEqual([model.task_params.train.model, model.eval_result.topk], ['MobileNetV3_small', 2]);
    const text = await server.ok('GET', '/model', { mid: emid, as_text: true });
    assert.deepEqual(JSON.parse(text.task_params), model.task_params);
    assert.deepEqual(JSON.parse(text.eval_result), model.eval_result);
    const yml = await send(server.port, 'GET', '/model/file', { path: join(save_dir, 'inference_model/model.yml') });
    assert.match(yml.body.toString(), /^Model: MobileNetV3_small$/m);
    await server.ok('DELETE', '/model', { type: 'exported', emid });
    assert.ok(!existsSync(save_dir), 'our own export goes with its record');
  });

  it('says what is not there yet rather than something wrong', async () => {
    await server.fails('not_found', 'GET', '/dataset/npy', { path: join(dir, 'a.npy') });
    await server.fails('not_ready', 'GET', '/project/task/metrics', { tid, type: 'sensitivities' });
    const { prune_log } = await server.ok('GET', '/project/task/metrics', { tid, type: 'prune' });
    assert.equal(prune_log, null);
    await server.fails('conflict', 'PUT', '/project/task/prune', { tid, act: 'stop' });
    const demo = await server.ok('GET', '/demo', { prj_type: '0' });
    assert.deepEqual([demo.attr.status, demo.attr.progress], [null, 0]);
    await server.fails('not_ready', 'POST', '/demo', { type: 'load', prj_type: 'classification' });
  });
});
