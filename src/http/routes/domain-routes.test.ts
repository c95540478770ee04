/** The routes of datasets, projects, tasks and models over real HTTP, real services and store; only jobs end when the test says so. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { failedOutcome } from '../../domain/testing/compute.js';
import { DETAILS, Harness } from '../../domain/testing/harness.js';
import { createEdge } from '../server.js';
import { OPEN_CONFIG, TestServer } from '../testing/client.js';

// biome-ignore lint/suspicious/noExplicitAny: answers of any shape
type Json = Record<string, any>;

class Client {
  constructor(
    readonly server: TestServer,
    readonly h: Harness,
  ) {}

  static async start(t: TestContext): Promise<Client> {
    const h = await Harness.start(t);
    const { server } = createEdge({
      services: h.services,
      config: { ...OPEN_CONFIG, gui: null },
      version: '0',
      checkAnswers: true,
    });
    const test = await TestServer.around(server);
    t.after(() => void server.closeAllConnections());
    t.after(() => void server.close());
    return new Client(test, h);
  }

  async call(method: string, path: string, body?: Json): Promise<Json> {
    const reply = await this.server.ask(path, { method, ...(body === undefined ? {} : { body }) });
    assert.equal(reply.status, 200, reply.text);
    return reply.json;
  }

  async ok(method: string, path: string, body?: Json): Promise<Json> {
    const answer = await this.call(method, path, body);
    assert.equal(answer.status, 1, `${method} ${path}: ${JSON.stringify(answer)}`);
    return answer;
  }

  async fails(code: string, method: string, path: string, body?: Json): Promise<Json> {
    const answer = await this.call(method, path, body);
    assert.equal(answer.status, -1, `${method} ${path} ${JSON.stringify(body)}: ${JSON.stringify(answer)}`);
    assert.equal(answer.code, code, JSON.stringify(answer));
    return answer;
  }
}

describe('every route refuses', () => {
  it('unknown ids, missing and mistyped arguments', async (t) => {
    const c = await Client.start(t);
    const tid = await c.h.trained();
    const unknown: [string, string, Json][] = [
      ['GET', '/workspace', { struct: 'task', id: 'T0099', attr_list: ['path'] }],
      ['PUT', '/workspace', { struct: 'task', id: 'T0099', attr_dict: { name: 'x' } }],
      ['GET', '/dataset', { did: 'D0099' }],
      ['PUT', '/dataset', { did: 'D0099', path: '/' }],
      ['DELETE', '/dataset', { did: 'D0099' }],
      ['PUT', '/dataset/split', { did: 'D0099', val_split: 0.2, test_split: 0.1 }],
      ['GET', '/dataset/details', { did: 'D0099' }],
      ['GET', '/project', { id: 'P0099' }],
      ['DELETE', '/project', { pid: 'P0099' }],
      ['GET', '/project/task', { tid: 'T0099' }],
      ['GET', '/project/task', { pid: 'P0099' }],
      ['POST', '/project/task', { pid: 'P0099' }],
      ['DELETE', '/project/task', { tid: 'T0099' }],
      ['GET', '/project/task/params', { tid: 'T0099' }],
      ['POST', '/project/task/params', { tid: 'T0099', train: {} }],
      ['POST', '/project/task/train', { tid: 'T0099' }],
      ['PUT', '/project/task/train', { tid: 'T0099', act: 'stop' }],
      ['PUT', '/project/task/train', { tid: 'T0099', act: 'resume', epoch: 1 }],
      ...['train', 'eval', 'eval_all', 'sensitivities', 'prune'].map((type): [string, string, Json] => [
        'GET',
        '/project/task/metrics',
        { tid: 'T0099', type },
      ]),
      ...['evaluate', 'predict', 'export', 'prune'].flatMap((job): [string, string, Json][] => [
        ['GET', `/project/task/${job}`, { tid: 'T0099' }],
        ['POST', `/project/task/${job}`, { tid: 'T0099', type: 'infer', save_dir: '/x', image_data: 'AAAA' }],
        ...(job === 'evaluate'
          ? []
          : [['PUT', `/project/task/${job}`, { tid: 'T0099', act: 'stop' }] as [string, string, Json]]),
      ]),
      ['GET', '/model', { mid: 'PM0099' }],
      ['POST', '/model', { pid: 'P0099', tid, name: 'x', type: 'exported', path: '/x', exported_type: 0 }],
      ['DELETE', '/model', { type: 'exported', emid: 'EM0099' }],
      ['DELETE', '/model', { type: 'pretrained', pmid: 'PM0099' }],
    ];
    for (const [method, path, body] of unknown) await c.fails('not_found', method, path, body);
    const wrong: [string, string, Json, string][] = [
      ['GET', '/workspace', { struct: 'task' }, 'id'],
      ['GET', '/workspace', { struct: 'x', id: tid, attr_list: [] }, 'struct'],
      ['GET', '/workspace', { struct: 'task', id: tid, attr_list: ['params'] }, 'attr_list'],
      ['PUT', '/workspace', { struct: 'task', id: tid }, 'attr_dict'],
      ['PUT', '/workspace', { struct: 'task', id: tid, attr_dict: { path: '/' } }, 'attr_dict.path'],
      ['POST', '/dataset', { desc: '', dataset_type: 'classification' }, 'name'],
      ['POST', '/dataset', { name: 'x', dataset_type: 'cats' }, 'dataset_type'],
      ['POST', '/dataset', { name: 5, dataset_type: 'classification' }, 'name'],
      ['PUT', '/dataset', { did: 'D0001' }, 'path'],
      ['PUT', '/dataset', { did: ['D0001'], path: '/' }, 'did'],
      ['PUT', '/dataset/split', { did: 'D0001', val_split: 'x', test_split: 0.1 }, 'val_split'],
      ['PUT', '/dataset/split', { did: 'D0001', val_split: -1, test_split: 0.1 }, 'val_split'],
      ['POST', '/project', { name: 'x' }, 'project_type'],
      ['GET', '/project/task', { resume: 1 }, 'tid'],
      ['POST', '/project/task', {}, 'pid'],
      ['POST', '/project/task', { pid: 'P0001', train: '{"a":' }, 'train'],
      ['POST', '/project/task', { pid: 'P0001', train: { num_epochs: 0 } }, 'num_epochs'],
      ['POST', '/project/task/train', {}, 'tid'],
      ['POST', '/project/task/train', { tid, pruned_flops: 2 }, 'pruned_flops'],
      ['PUT', '/project/task/train', { tid, act: 'pause' }, 'act'],
      ['PUT', '/project/task/train', { tid, act: 'resume', epoch: 'x' }, 'epoch'],
      ['GET', '/project/task/metrics', { tid, type: 'x' }, 'type'],
      ['GET', '/project/task/metrics', { tid }, 'type'],
      ['POST', '/project/task/evaluate', { tid, topk: 0 }, 'topk'],
      ['POST', '/project/task/evaluate', { tid, score_thresh: 2 }, 'score_thresh'],
      ['POST', '/project/task/predict', { tid, image_data: 5 }, 'image_data'],
      ['POST', '/project/task/predict', { tid, image_data: '?' }, 'image_data'],
      ['POST', '/project/task/export', { tid, type: 'onnx', save_dir: '/x' }, 'type'],
      ['POST', '/project/task/export', { tid, type: 'infer' }, 'save_dir'],
      ['POST', '/project/task/export', { tid, type: 'lite', save_dir: '/x' }, 'model_path'],
      ['POST', '/project/task/export', { tid, type: 'infer', save_dir: '/x', quant_images: 0 }, 'quant_images'],
      ['GET', '/model', {}, 'type'],
      ['GET', '/model', { type: 'x' }, 'type'],
      ['POST', '/model', { pid: 'P0001', tid, name: 'x', type: 'exported' }, 'path'],
      ['POST', '/model', { pid: 'P0001', tid, name: 'x', type: 'pretrained' }, 'source_path'],
      ['DELETE', '/model', { type: 'exported' }, 'emid'],
    ];
    for (const [method, path, body, field] of wrong) {
      const answer = await c.fails('invalid_argument', method, path, body);
      assert.equal(answer.context.field, field, JSON.stringify(answer));
    }
  });

  it('what is not available yet', async (t) => {
    const c = await Client.start(t);
    const { did } = await c.ok('POST', '/dataset', { name: 'd', desc: '', dataset_type: 'detection' });
    const { pid } = await c.ok('POST', '/project', { name: 'd', desc: '', project_type: 'detection' });
    await c.ok('PUT', '/workspace', { struct: 'project', id: pid, attr_dict: { did } });
    assert.equal((await c.ok('GET', '/project', { id: pid })).attr.type, 'detection');
  });
});

describe('answers', () => {
  it('of a workspace without anything', async (t) => {
    const c = await Client.start(t);
    assert.deepEqual(await c.ok('GET', '/workspace'), { status: 1, dirname: c.h.config.workspace });
    assert.deepEqual(await c.ok('GET', '/dataset'), { status: 1, datasets: [] });
    assert.deepEqual(await c.ok('GET', '/project'), { status: 1, projects: [] });
    assert.deepEqual(await c.ok('GET', '/project/task'), { status: 1, tasks: [] });
    assert.deepEqual(await c.ok('GET', '/model?type=exported'), { status: 1, exported_models: [] });
    assert.deepEqual(await c.ok('GET', '/model', { type: 'pretrained' }), { status: 1, pretrained_models: [] });
  });

  it('of datasets, from creation to split', async (t) => {
    const c = await Client.start(t);
    const created = await c.ok('POST', '/dataset', { name: '花 <b>', dataset_type: 'remote_segmentation' });
    assert.deepEqual(created, { status: 1, did: 'D0001', id: 'D0001' });
    const { attr, ...rest } = await c.ok('GET', '/dataset?did=D0001');
    assert.deepEqual(rest, { status: 1, id: 'D0001', dataset_status: 0, message: '' });
    assert.match(attr.create_time, /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$/);
    const { create_time } = attr;
    const path = join(c.h.config.workspace, 'datasets/D0001');
    const expected = { type: 'segmentation', id: 'D0001', name: '花 <b>', path, desc: '', create_time, remote: true };
    assert.deepEqual(attr, { ...expected, pids: [] });
    const { did } = await c.ok('POST', '/dataset', { name: 'a', desc: 'd', dataset_type: 0 });
    await c.ok('PUT', '/dataset', { did, path: c.h.source, extra: 1 });
    const job = c.h.compute.job(`${did}/import`);
    job.event({ type: 'progress', stage: 'copying', done: 42, total: 100 });
    await c.h.until(() => c.h.services.datasets.get(did).status === 3);
    const listed = (await c.ok('GET', '/dataset')).datasets;
    assert.deepEqual(listed[0], { id: 'D0001', attr: { ...expected, dataset_status: 0, message: '' } });
    assert.deepEqual(listed[1].attr.message, { pid: process.pid, percent: 0.42 });
    job.event({ type: 'progress', stage: 'copying', done: 43, total: 100 });
    assert.equal((await c.ok('GET', '/dataset')).datasets[1].attr.message.percent, 0.43);
    assert.deepEqual((await c.ok('GET', '/dataset', { did })).message, { pid: process.pid, percent: 0.43 });
    assert.deepEqual(await c.ok('GET', '/dataset/details', { did }), { status: 1, details: null });
    c.h.writeDetails(join(c.h.config.workspace, 'datasets', did));
    job.end({ type: 'import', details: { ...DETAILS }, split: false, files: 2, warnings: [] });
    await c.h.until(() => c.h.services.datasets.get(did).status === 4);
    const reply = await c.server.ask(`/dataset/details?did=${did}`);
    assert.ok(!reply.text.includes('<'));
    assert.deepEqual(reply.json, { status: 1, details: DETAILS });
    await c.ok('PUT', '/dataset/split', { did, val_split: 0.2, test_split: 0.1 });
    assert.equal((await c.ok('GET', '/dataset', { did })).dataset_status, 6);
    assert.deepEqual((await c.ok('GET', '/dataset/details', { did })).details.train_files, ['a/1.png']);
    await c.ok('DELETE', '/dataset', { did });
    assert.equal((await c.ok('GET', '/dataset')).datasets.length, 1);
  });

  it('of projects and tasks', async (t) => {
    const c = await Client.start(t);
    const did = await c.h.dataset();
    const { pid } = await c.ok('POST', '/project', { name: 'line 3', desc: '', project_type: 'classification' });
    await c.ok('POST', '/workspace', { struct: 'project', id: pid, attr_dict: { did } });
    const train = JSON.stringify({ num_epochs: 3, model: 'ResNet18', brightness: 'undefined' });
    const { tid } = await c.ok('POST', '/project/task', { pid, train, desc: 'first try' });
    await c.ok('POST', '/project/task', { pid });
    await c.ok('POST', '/project/task/train', { tid });
    const { attr } = await c.ok('GET', '/project', { id: pid });
    assert.deepEqual(attr.tasks, [3, 1]);
    assert.deepEqual(attr.task_status, { T0001: { status: 3 }, T0002: { status: 1 } });
    const { projects } = await c.ok('GET', '/project');
    const { task_status, ...inList } = attr;
    assert.deepEqual(projects, [{ id: pid, attr: inList }]);
    assert.deepEqual((await c.ok('GET', '/dataset', { did })).attr.pids, [pid]);
    const { tasks } = await c.ok('GET', '/project/task', { pid, tid });
    const { create_time } = tasks[0];
    assert.deepEqual(tasks[0], {
      id: tid,
      name: '',
      desc: 'first try',
      pid,
      path: join(c.h.config.workspace, 'projects', pid, tid),
      create_time,
      status: 3,
      type: 'classification',
    });
    assert.deepEqual((await c.ok('GET', '/project/task')).tasks, tasks);
    const single = await c.ok('GET', `/project/task?tid=${tid}&resume=`);
    assert.deepEqual(
      [single.task_status, single.type, single.resumable, single.max_saved_epochs],
      [3, 'classification', false, -1],
    );
    assert.equal(typeof single.message, 'string');
    c.h.checkpoint(tid, 'epoch_2');
    await c.ok('PUT', '/project/task/train', { tid, act: 'stop' });
    const stopped = await c.ok('GET', '/project/task', { tid, resume: '' });
    assert.deepEqual([stopped.task_status, stopped.resumable, stopped.max_saved_epochs], [8, true, 2]);
    await c.ok('PUT', '/project/task/train', { tid, act: 'resume', epoch: '2' });
    await c.fails('conflict', 'DELETE', '/project/task', { tid });
    await c.ok('DELETE', '/project/task', { tid, force: true });
    await c.ok('DELETE', '/project', { pid });
    assert.deepEqual(await c.ok('GET', '/project/task'), { status: 1, tasks: [] });
  });

  it('of training progress', async (t) => {
    const c = await Client.start(t);
    const tid = await c.h.task();
    const idle = (await c.ok('GET', '/project/task/metrics', { tid, type: 'train' })).train_log;
    assert.equal(idle.train_metrics, null);
    assert.equal(idle.eval_done, false);
    await c.fails('not_ready', 'GET', '/project/task/metrics', { tid, type: 'eval' });
    assert.deepEqual(await c.ok('GET', '/project/task/metrics', { tid, type: 'eval_all' }), {
      status: 1,
      key: null,
      epoch_result_dict: {},
      best_epoch: -1,
      best_result: -1,
    });
    assert.deepEqual(await c.ok('GET', '/project/task/metrics', { tid, type: 'prune' }), {
      status: 1,
      prune_log: null,
    });
    assert.equal((await c.ok('GET', '/project/task/prune', { tid })).prune_status, null);
    const done = await c.h.trained();
    const best = await c.ok('GET', '/project/task/metrics', { tid: done, type: 'eval' });
    assert.deepEqual(best, { status: 1, eval_metric: { acc1: 0.5 }, eval_metrics: { acc1: 0.5 } });
    const log = (await c.ok('GET', `/project/task/metrics?tid=${done}&type=train`)).train_log;
    assert.deepEqual(log.eval_metrics, { Epoch: 2, acc1: 0.5, acc2: 1 });
    assert.deepEqual(log.eval_metircs, log.eval_metrics);
  });

  it('of the pruning analysis and a pruned training', async (t) => {
    const c = await Client.start(t);
    const tid = await c.h.trained();
    await c.fails('not_ready', 'GET', '/project/task/metrics', { tid, type: 'sensitivities' });
    assert.deepEqual(await c.ok('POST', '/project/task/prune', { tid }), { status: 1 });
    await c.fails('conflict', 'POST', '/project/task/prune', { tid });
    const job = c.h.compute.job(`${tid}/prune`);
    job.event({ type: 'progress', stage: 'analysing', done: 7, total: 126, eta: 753 });
    const log_file = join(c.h.services.tasks.get(tid).path, 'prune/out.log');
    assert.deepEqual(await c.ok('GET', `/project/task/metrics?tid=${tid}&type=prune`), {
      status: 1,
      prune_log: { log_file, eta: '0:12:33', iters: '126', current: '7', progress: '5.56%' },
    });
    assert.equal((await c.ok('GET', '/project/task', { tid })).task_status, 14);
    assert.equal((await c.ok('GET', '/project/task/prune', { tid })).prune_status, 1);
    assert.deepEqual(await c.ok('PUT', '/project/task/prune', { tid, act: 'stop' }), { status: 1 });
    assert.equal((await c.ok('GET', '/project/task/prune', { tid })).prune_status, 4);
    await c.fails('invalid_argument', 'PUT', '/project/task/prune', { tid, act: 'pause' });
    await c.ok('POST', '/project/task/prune', { tid });
    const spec = c.h.compute.submitted.at(-1);
    assert.ok(spec?.kind === 'sensitivity');
    writeFileSync(join(spec.out_dir, 'sensitivities.json'), '{}');
    c.h.compute
      .job(`${tid}/prune`)
      .end({ type: 'sensitivity', stopped: false, path: '', metric: 'acc1', base: 1, layers: 2, curve: [[0.3, 0.05]] });
    await c.h.until(() => !c.h.services.jobs.isLive(tid, 'prune'));
    assert.deepEqual(await c.ok('GET', '/project/task/metrics', { tid, type: 'sensitivities' }), {
      status: 1,
      sensitivities_loss_img: { '0.3000': 0.05 },
    });
    const { pid } = c.h.services.tasks.get(tid);
    const { tid: pruned } = await c.ok('POST', '/project/task', { pid, parent_id: tid, train: 'ignored' });
    assert.deepEqual((await c.ok('GET', '/workspace', { struct: 'task', id: pruned, attr_list: ['parent_id'] })).attr, {
      parent_id: tid,
    });
    for (const [field, value] of [
      ['pruned_flops', 1],
      ['pruned_flops', 0],
      ['eval_metric_loss', -0.1],
      ['eval_metric_loss', 'much'],
    ] as const) {
      const answer = await c.fails('invalid_argument', 'POST', '/project/task/train', { tid: pruned, [field]: value });
      assert.equal(answer.context.field, field);
    }
    await c.fails('invalid_argument', 'POST', '/project/task/train', { tid, pruned_flops: 0.4 });
    await c.ok('POST', '/project/task/train', { tid: pruned, pruned_flops: 0.4 });
    assert.equal((await c.ok('GET', '/project/task', { tid: pruned })).task_status, 15);
    const sizes = { macs_before: 100, macs_after: 60, parameters_before: 10, parameters_after: 5 };
    c.h.compute.job(`${pruned}/train`).event({ type: 'pruned', ...sizes, tolerance: 0.1, ratios: {} });
    const { train_log } = await c.ok('GET', '/project/task/metrics', { tid: pruned, type: 'train' });
    assert.deepEqual([train_log.pruning.flops_before, train_log.pruning.flops_after], [100, 60]);
    assert.equal((await c.ok('GET', `/board/${pruned}/data`)).pruning.parameters_after, 5);
    await c.fails('conflict', 'DELETE', '/project/task', { tid });
  });

  it('of evaluation, prediction and export', async (t) => {
    const c = await Client.start(t);
    const tid = await c.h.trained();
    const { path } = c.h.services.tasks.get(tid);
    const never = await c.ok('GET', '/project/task/evaluate', { tid });
    assert.deepEqual([never.evaluate_status, never.result], [null, null]);
    assert.equal((await c.ok('GET', '/project/task/predict', { tid })).predict_status, null);
    assert.equal((await c.ok('GET', '/project/task/export', { tid })).export_status, null);
    const page = { tid, epoch: null, topk: 5, score_thresh: null, overlap_thresh: null };
    await c.ok('POST', '/project/task/evaluate', page);
    assert.deepEqual((await c.ok('GET', '/project/task/evaluate', { tid })).evaluate_status, 11);
    c.h.compute.job(`${tid}/evaluate`).end(failedOutcome('internal', 'no'));
    await c.h.until(() => !c.h.services.jobs.isLive(tid, 'evaluate'));
    const failed = await c.call('GET', '/project/task/evaluate', { tid });
    assert.deepEqual([failed.status, failed.evaluate_status, failed.result, failed.message], [-1, 12, null, 'no']);
    await c.ok('POST', '/project/task/evaluate', { tid });
    c.h.compute.job(`${tid}/evaluate`).end({ type: 'evaluate', report: { label_list: ['a'] } });
    await c.h.until(() => !c.h.services.jobs.isLive(tid, 'evaluate'));
    const done = await c.ok('GET', '/project/task/evaluate', { tid });
    assert.deepEqual([done.evaluate_status, done.result], [5, { label_list: ['a'], epoch: null }]);
    assert.equal(done.path, join(path, 'eval_res.json'));

    const one = await c.ok('POST', '/project/task/predict', { tid, image_data: 'iVBORw0KGgo=' });
    assert.equal(one.path, join(path, 'visualized_test_results/predict_result.png'));
    const running = await c.ok('GET', '/project/task/predict', { tid });
    assert.deepEqual([running.predict_status, running.predict_num, running.total_num], [0, 0, 1]);
    writeFileSync(join(c.h.source, 'a/1.png'), '');
    const list = [join(c.h.source, 'a/1.png')];
    assert.deepEqual(await c.ok('POST', '/project/task/predict', { tid, img_list: list }), { status: 1 });
    assert.deepEqual(await c.ok('POST', '/project/task/predict', { tid, img_list: JSON.stringify(list) }), {
      status: 1,
    });
    assert.deepEqual(await c.ok('POST', '/project/task/predict', { tid, img_list: [] }), { status: 1 });
    assert.deepEqual(await c.ok('POST', '/project/task/predict', { tid }), { status: 1, path: null });
    assert.equal((await c.ok('PUT', '/project/task/predict', { tid })).predict_status, 2);
    await c.fails('conflict', 'PUT', '/project/task/predict', { tid });

    const save_dir = join(path, 'export_model');
    const begun = await c.ok('POST', '/project/task/export', { tid, type: 'inference', save_dir, epoch: '2' });
    assert.equal(begun.save_dir, save_dir);
    const model = { pid: 'P0001', tid, name: `${tid}_export_model`, type: 'exported', source_path: '', path: save_dir };
    const { emid } = await c.ok('POST', '/model', { ...model, exported_type: 0, eval_results: {} });
    assert.equal((await c.ok('GET', '/project/task/export', { tid })).export_status, 6);
    assert.deepEqual((await c.ok('GET', '/model', { type: 'exported' })).exported_models, []);
    assert.equal((await c.ok('PUT', '/project/task/export', { tid })).export_status, 13);
    assert.equal((await c.call('GET', '/project/task/export', { tid })).status, -1);
    await c.ok('POST', '/project/task/export', { tid, type: 'infer', save_dir, quant: false });
    c.h.compute.job(`${tid}/export`).end({ type: 'export', path: save_dir, parameters: 1, macs: 1 });
    await c.h.until(() => !c.h.services.jobs.isLive(tid, 'export'));
    assert.equal((await c.ok('GET', '/project/task/export', { tid })).export_status, 7);
    const { exported_models } = await c.ok('GET', '/model', { type: 'exported' });
    assert.deepEqual(
      [exported_models[0].id, exported_models[0].exported_type, exported_models[0].path],
      [emid, 0, save_dir],
    );
    assert.deepEqual((await c.ok('GET', '/project/task/export', { tid, quant: 'result' })).quant_result, {});

    const about = await c.ok('GET', '/model', { mid: emid });
    assert.deepEqual(about.dataset_attr.labels, ['a', 'b<']);
    assert.equal(about.task_params.train.num_epochs, 2);
    assert.deepEqual(about.eval_result, { label_list: ['a'], epoch: null });
    const text = await c.ok('GET', '/model', { mid: emid, as_text: true });
    assert.deepEqual(JSON.parse(text.task_params), about.task_params);
    await c.ok('DELETE', '/model', { type: 'exported', emid });
  });

  it('of pretrained models', async (t) => {
    const c = await Client.start(t);
    const tid = await c.h.trained();
    const source_path = join(c.h.services.tasks.get(tid).path, 'output/best_model');
    const answer = await c.ok('POST', '/model', { pid: 'P0001', tid, name: 'base', type: 'pretrained', source_path });
    assert.deepEqual(answer, { status: 1, pmid: 'PM0001' });
    const { pretrained_models } = await c.ok('GET', '/model', { type: 'pretrained' });
    const { create_time, ...rest } = pretrained_models[0];
    assert.match(create_time, /^\d{4}/);
    assert.deepEqual(rest, {
      id: 'PM0001',
      name: 'base',
      model: 'MobileNetV2',
      type: 'classification',
      pid: 'P0001',
      tid,
      path: join(c.h.config.workspace, 'pretrain/PM0001'),
    });
    assert.equal((await c.ok('GET', '/model', { mid: 'PM0001' })).eval_result, null);
    await c.ok('DELETE', '/model', { type: 'pretrained', pmid: 'PM0001' });
  });
});
