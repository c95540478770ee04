import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { JobOutcome, JobSpec } from '../compute/jobs.gen.js';
import { PruneStatus as S, TaskStatus as T } from './enums.js';
import type { OarlockError } from './errors.js';
import { failedOutcome } from './testing/compute.js';
import { Harness } from './testing/harness.js';

type Kind = JobSpec['kind'];
const last = <K extends Kind>(h: Harness, kind: K): Extract<JobSpec, { kind: K }> => {
  const spec = h.compute.submitted.filter((entry) => entry.kind === kind).at(-1);
  assert.ok(spec);
  return spec as Extract<JobSpec, { kind: K }>;
};

const CURVE: [number, number][] = [
  [0.02131, 0.05],
  [0.118, 0.1],
  [0.118, 0.15],
];
const analysed: JobOutcome = {
  ...{ type: 'sensitivity', stopped: false, path: '', metric: 'acc1' },
  ...{ base: 0.5, layers: 14, curve: CURVE },
};

/** A trained task whose best model says what it is, as those of the engine do. */
async function trained(h: Harness): Promise<string> {
  const tid = await h.trained();
  model(h, tid, 'a1');
  return tid;
}

function model(h: Harness, tid: string, sha256: string): void {
  const file = join(h.services.tasks.get(tid).path, 'output/best_model/manifest.json');
  writeFileSync(file, JSON.stringify({ version: 1, files: { 'model.safetensors': { bytes: 1, sha256 } } }));
}

/** Starts an analysis and lets it end well, with its file. */
async function analyse(h: Harness, tid: string): Promise<void> {
  await h.services.pruning.analyse(tid);
  writeFileSync(join(last(h, 'sensitivity').out_dir, 'sensitivities.json'), '{}');
  h.compute.job(`${tid}/prune`).end(analysed);
  await h.until(() => !h.services.jobs.isLive(tid, 'prune'));
}

const child = async (h: Harness, tid: string): Promise<string> => {
  const { pid } = h.services.tasks.get(tid);
  return (await h.services.tasks.create({ pid, parent_id: tid, train: { num_epochs: 1 } })).id;
};

const states = (h: Harness, tid: string): unknown[] => [
  h.services.tasks.get(tid).status,
  h.services.jobs.get(tid, 'prune')?.status,
];

describe('the pruning analysis', () => {
  it('is refused before training, twice at once, for two-stage detectors and without a split', async (t) => {
    const h = await Harness.start(t);
    const { pruning, jobs, tasks, training, store } = h.services;
    await assert.rejects(pruning.analyse('T0009'), { code: 'not_found' });
    const fresh = await h.task();
    await assert.rejects(pruning.analyse(fresh), { code: 'not_ready', message: /no best model/ });
    await assert.rejects(jobs.stop(fresh, 'prune'), { code: 'conflict', context: { state: 'never started' } });
    h.checkpoint(fresh, 'best_model');
    await assert.rejects(pruning.analyse(fresh), { code: 'conflict', context: { state: 'XINIT' } });
    const tid = await trained(h);
    const outcomes = await Promise.allSettled(Array.from({ length: 8 }, () => pruning.analyse(tid)));
    const refused = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason] : []));
    assert.equal(refused.length, 7);
    for (const error of refused as OarlockError[]) {
      assert.deepEqual([error.code, error.context.state], ['conflict', 'XSPRUNEING'], error.message);
    }
    assert.deepEqual(states(h, tid), [T.XPRUNEING, S.XSPRUNEING]);
    await assert.rejects(training.start(tid), { code: 'conflict', context: { state: 'XPRUNEING' } });
    await assert.rejects(jobs.export(tid, { save_dir: join(h.folder, 'out/x') }), { code: 'conflict' });
    await assert.rejects(tasks.delete(tid), { code: 'conflict', hint: /task\/prune/ });
    const { did } = h.services.projects.get(tasks.get(tid).pid);
    await assert.rejects(h.services.datasets.split(did, 0.5, 0.1), { code: 'conflict', message: /is analysed/ });
    await tasks.delete(tid, { force: true });
    assert.equal(store.get('sidejob', `${tid}/prune`), undefined);

    for (const [type, name] of [
      ['detection', 'FasterRCNN'],
      ['instance_segmentation', 'MaskRCNN'],
    ] as const) {
      const set = await h.services.datasets.create({ name: 'd', desc: '', type });
      const project = await h.services.projects.create({ name: 'd', desc: '', type });
      await h.services.workspace.setAttributes('project', project.id, { did: set.id });
      const two = await tasks.create({ pid: project.id, train: { model: name } });
      await assert.rejects(pruning.analyse(two.id), {
        code: 'unsupported',
        message: new RegExp(`${name} cannot be pruned`),
      });
    }
  });

  it('runs with the whole job of its own, and takes the task with it and back', async (t) => {
    const h = await Harness.start(t);
    const tid = await trained(h);
    const { pruning, jobs, tasks } = h.services;
    assert.equal(pruning.log(tid), null);
    assert.throws(() => pruning.sensitivities(tid), { code: 'not_ready', message: /no pruning analysis/ });
    await jobs.evaluate(tid, {});
    h.compute.job(`${tid}/evaluate`).end({ type: 'evaluate', report: {} });
    await h.until(() => tasks.get(tid).status === T.XEVALUATED);
    await pruning.analyse(tid);
    const spec = last(h, 'sensitivity');
    const { path } = tasks.get(tid);
    assert.deepEqual(spec.source, { checkpoint: join(path, 'output/best_model'), epoch: null });
    assert.deepEqual([spec.out_dir, spec.device.precision], [join(path, 'prune'), 'fp32']);
    assert.ok(existsSync(spec.out_dir));
    const job = h.compute.job(`${tid}/prune`);
    assert.deepEqual([job.request.lane, job.request.errLog], ['train', join(path, 'prune/err.log')]);
    job.request.onState?.('queued', { message: 'Waiting for cpu, next in line.' });
    assert.equal(jobs.get(tid, 'prune')?.message, 'Waiting for cpu, next in line.');
    job.request.onState?.('running', {});
    assert.equal(jobs.get(tid, 'prune')?.message, '');
    const log_file = join(path, 'prune/out.log');
    assert.deepEqual(pruning.log(tid), { log_file, eta: null, iters: null, current: null, progress: null });
    job.event({ type: 'progress', stage: 'analysing', done: 7, total: 126, eta: 753 });
    const log = { log_file, eta: '0:12:33', iters: '126', current: '7', progress: '5.56%' };
    assert.deepEqual(pruning.log(tid), log);
    assert.throws(() => pruning.sensitivities(tid), { code: 'not_ready', message: /still running/ });
    assert.ok(h.events.some(({ type, data }) => type === 'job' && (data as { percent?: number }).percent === 5));
    job.event({ type: 'progress', stage: 'analysing', done: 126, total: 126, eta: 0 });
    job.end(analysed);
    await h.until(() => !jobs.isLive(tid, 'prune'));
    assert.deepEqual(states(h, tid), [T.XEVALUATED, S.XSPRUNEDONE]);
    assert.deepEqual(pruning.sensitivities(tid), { '0.0213': 0.05, '0.1180': 0.15 });
    assert.deepEqual(pruning.log(tid), { ...log, eta: '0:00:00', current: '126', progress: '100.00%' });
    assert.match(jobs.get(tid, 'prune')?.message ?? '', /14 layers, acc1 0\.5000/);
    await h.crash();
    assert.deepEqual(h.services.pruning.sensitivities(tid), { '0.0213': 0.05, '0.1180': 0.15 });
  });

  it('stopped or failed leaves the task as it was, and goes on from what is measured', async (t) => {
    const h = await Harness.start(t);
    const tid = await trained(h);
    const { pruning, jobs, tasks } = h.services;
    const table = join(tasks.get(tid).path, 'prune/sensitivities.json');
    await pruning.analyse(tid);
    writeFileSync(table, 'three layers');
    h.compute.job(`${tid}/prune`).event({ type: 'progress', stage: 'analysing', done: 27, total: 126 });
    await jobs.stop(tid, 'prune');
    assert.deepEqual(states(h, tid), [T.XTRAINDONE, S.XSPRUNEEXIT]);
    assert.match(jobs.get(tid, 'prune')?.message ?? '', /was stopped.*is kept/);
    assert.deepEqual([pruning.log(tid)?.current, pruning.log(tid)?.eta], ['27', null]);
    await assert.rejects(jobs.stop(tid, 'prune'), { code: 'conflict', context: { state: 'XSPRUNEEXIT' } });
    await assert.rejects(async () => pruning.sensitivities(tid), { code: 'not_ready', message: /was stopped/ });
    await pruning.analyse(tid);
    assert.equal(readFileSync(table, 'utf8'), 'three layers', 'reused');
    h.fail(`${tid}/prune`, 'The compute host was ended by signal SIGKILL.');
    await h.until(() => !jobs.isLive(tid, 'prune'));
    assert.deepEqual(states(h, tid), [T.XTRAINDONE, S.XSPRUNEFAIL]);
    assert.match(jobs.get(tid, 'prune')?.message ?? '', /SIGKILL/);
    await assert.rejects(async () => pruning.sensitivities(tid), { code: 'not_ready', message: /has failed/ });
    await pruning.analyse(tid);
    assert.ok(existsSync(table));
    await jobs.stop(tid, 'prune');
    model(h, tid, 'b2');
    writeFileSync(join(table, '../model.sensi.data'), 'of PaddleX');
    await pruning.analyse(tid);
    assert.ok(!existsSync(table), 'of another model');
    assert.ok(existsSync(join(table, '../model.sensi.data')));
    writeFileSync(table, '');
    await jobs.stop(tid, 'prune');
    await h.services.datasets.split('D0001', 0.3, 0.1);
    await pruning.analyse(tid);
    assert.ok(!existsSync(table), 'measured on other pictures');
    writeFileSync(table, '');
    h.compute.job(`${tid}/prune`).end(analysed);
    await h.until(() => !jobs.isLive(tid, 'prune'));
    await pruning.analyse(tid);
    assert.ok(!existsSync(table), 'a finished one starts over');
  });

  it('goes on after a crash and after an orderly end of the server', async (t) => {
    const h = await Harness.start(t);
    const tid = await trained(h);
    const table = join(h.services.tasks.get(tid).path, 'prune/sensitivities.json');
    await h.services.pruning.analyse(tid);
    writeFileSync(table, 'partial');
    await h.crash();
    await h.until(() => h.compute.jobs.has(`${tid}/prune`));
    assert.deepEqual(states(h, tid), [T.XPRUNEING, S.XSPRUNEING]);
    assert.equal(readFileSync(table, 'utf8'), 'partial');
    await h.services.close(2000);
    await h.open();
    // A stop that comes before it has begun again waits for that.
    await h.services.jobs.stop(tid, 'prune');
    assert.deepEqual(states(h, tid), [T.XTRAINDONE, S.XSPRUNEEXIT]);
    assert.equal(readFileSync(table, 'utf8'), 'partial');
  });

  it('after a crash fails with the reason when it cannot or must not go on', async (t) => {
    const h = await Harness.start(t);
    const tid = await trained(h);
    await h.services.pruning.analyse(tid);
    await h.crash({ resume: 'mark' });
    assert.deepEqual(states(h, tid), [T.XTRAINDONE, S.XSPRUNEFAIL]);
    assert.match(h.services.jobs.get(tid, 'prune')?.message ?? '', /server ended/);
    await h.services.pruning.analyse(tid);
    rmSync(join(h.services.tasks.get(tid).path, 'output/best_model'), { recursive: true });
    await h.crash();
    await h.until(() => h.services.jobs.get(tid, 'prune')?.status === S.XSPRUNEFAIL);
    assert.match(h.services.jobs.get(tid, 'prune')?.message ?? '', /no best model/);
    assert.equal(h.services.tasks.get(tid).status, T.XTRAINDONE);
  });
});

describe('a pruned training', () => {
  it('needs a parent with a finished analysis of its present model', async (t) => {
    const h = await Harness.start(t);
    const tid = await trained(h);
    const { training, tasks, jobs, pruning } = h.services;
    const pruned = await child(h, tid);
    assert.equal(tasks.params(pruned).num_epochs, 2, "the parent's parameters");
    await assert.rejects(training.start(pruned), { code: 'not_ready', message: /has no pruning analysis yet/ });
    await pruning.analyse(tid);
    await assert.rejects(training.start(pruned), { code: 'not_ready', message: /still running/ });
    await jobs.stop(tid, 'prune');
    await assert.rejects(training.start(pruned), { code: 'not_ready', message: /stopped before its end/ });
    await analyse(h, tid);
    for (const bad of [{ pruned_flops: 0 }, { pruned_flops: 1 }, { pruned_flops: Number.NaN }]) {
      await assert.rejects(training.start(pruned, bad), {
        code: 'invalid_argument',
        context: { field: 'pruned_flops' },
      });
    }
    await assert.rejects(training.start(pruned, { eval_metric_loss: -1 }), { code: 'invalid_argument' });
    const table = join(tasks.get(tid).path, 'prune/sensitivities.json');
    rmSync(table);
    await assert.rejects(training.start(pruned), { code: 'not_ready', message: /are not in/ });
    writeFileSync(table, '');
    model(h, tid, 'b2');
    await assert.rejects(training.start(pruned), { code: 'not_ready', message: /has changed since/ });
    await assert.rejects(tasks.setParams(pruned, { model: 'ResNet50' }), {
      code: 'invalid_argument',
      context: { field: 'model' },
    });
    await tasks.setParams(pruned, { num_epochs: 1 });
    assert.equal(tasks.get(pruned).status, T.XINIT);
    await tasks.delete(tid);
    await assert.rejects(training.start(pruned), { code: 'not_ready', message: /is deleted/ });
    await tasks.delete(pruned);
  });

  it('begins with the parent, keeps what was removed, and is resumed without it', async (t) => {
    const h = await Harness.start(t);
    const tid = await trained(h);
    await analyse(h, tid);
    const { training, tasks } = h.services;
    const pruned = await child(h, tid);
    const parent = tasks.get(tid).path;
    await training.start(pruned);
    assert.equal(tasks.get(pruned).status, T.XPRUNETRAIN);
    assert.deepEqual(last(h, 'train').prune?.target, { by: 'loss', value: 0.05 });
    await training.stop(pruned);
    await training.start(pruned, { eval_metric_loss: 2 });
    assert.deepEqual(last(h, 'train').prune?.target, { by: 'loss', value: 2 });
    await training.stop(pruned);
    await training.start(pruned, { eval_metric_loss: 2, pruned_flops: 0.4 });
    const spec = last(h, 'train');
    const sensitivities = join(parent, 'prune/sensitivities.json');
    assert.deepEqual(
      [spec.weights, spec.prune, spec.resume],
      [join(parent, 'output/best_model'), { sensitivities, target: { by: 'flops', value: 0.4 } }, { from: 'fresh' }],
    );
    assert.match(String(training.log(pruned).notes), /eval_metric_loss is left aside/);
    const params = tasks.params(pruned);
    assert.deepEqual(
      [params.pruned_flops, params.eval_metric_loss, params.sensitivities_path],
      [0.4, null, sensitivities],
    );
    assert.equal(training.log(pruned).pruning, null);
    const job = h.compute.job(`${pruned}/train`);
    job.event({ type: 'started', device: 'cpu', precision: 'fp32', notes: [] });
    const sizes = { macs_before: 100, macs_after: 58, parameters_before: 1000, parameters_after: 490 };
    job.event({ type: 'pruned', ...sizes, tolerance: 0.031, ratios: { conv1: 0.25 } });
    const view = {
      ...{ flops_before: 100, flops_after: 58, pruned_flops: 1 - 0.58 },
      ...{ parameters_before: 1000, parameters_after: 490, tolerance: 0.031, ratios: { conv1: 0.25 } },
    };
    assert.deepEqual(training.log(pruned).pruning, view);
    assert.deepEqual(
      h.events.filter(({ type }) => type === 'pruned').map(({ data }) => (data as { id: string }).id),
      [pruned],
    );
    await h.until(() => h.services.store.get('training', pruned)?.pruning != null);
    await training.stop(pruned);
    h.checkpoint(pruned, 'epoch_1');
    await tasks.delete(tid);
    await training.resume(pruned, 1);
    assert.equal(tasks.get(pruned).status, T.XPRUNETRAIN);
    assert.deepEqual([last(h, 'train').weights, last(h, 'train').prune], [null, undefined]);
    await h.crash();
    assert.deepEqual(h.services.training.log(pruned).pruning, view);
    await h.until(() => h.compute.jobs.has(`${pruned}/train`));
    assert.equal(h.services.tasks.get(pruned).status, T.XPRUNETRAIN);
    assert.deepEqual(last(h, 'train').resume, { from: 'epoch', epoch: 1 });
  });

  it('that had not begun when the server was killed begins with the parent again', async (t) => {
    const h = await Harness.start(t);
    const tid = await trained(h);
    await analyse(h, tid);
    const pruned = await child(h, tid);
    await h.services.training.start(pruned, { pruned_flops: 0.3 });
    await h.crash();
    await h.until(() => h.compute.jobs.has(`${pruned}/train`));
    assert.deepEqual(last(h, 'train').resume, { from: 'fresh' });
    assert.deepEqual(last(h, 'train').prune?.target, { by: 'flops', value: 0.3 });
    h.compute.job(`${pruned}/train`).end(failedOutcome('invalid_data', 'The table is of another network.'));
    await h.until(() => h.services.tasks.get(pruned).status === T.XTRAINFAIL);
    assert.match(h.services.tasks.get(pruned).message, /another network/);
  });

  it('holds its parent: no new training or analysis, no deletion without force', async (t) => {
    const h = await Harness.start(t);
    const tid = await trained(h);
    await analyse(h, tid);
    const pruned = await child(h, tid);
    const { training, tasks, pruning } = h.services;
    await training.start(pruned);
    const refusal = { code: 'conflict', message: new RegExp(`${pruned}, which prunes its model, is in training`) };
    await assert.rejects(training.start(tid), refusal);
    await assert.rejects(pruning.analyse(tid), refusal);
    await assert.rejects(tasks.delete(tid), refusal);
    assert.ok(existsSync(join(tasks.get(tid).path, 'prune/sensitivities.json')));
    await tasks.delete(tid, { force: true });
    assert.equal(tasks.get(pruned).status, T.XTRAINEXIT, 'stopped at a checkpoint');
  });
});

it('an analysis of PaddleX without a curve asks for a new one, one with a curve shows it', async (t) => {
  const h = await Harness.start(t);
  const tid = await h.trained();
  const { store, pruning, training } = h.services;
  const adopted = (sensitivities_loss_img: Record<string, number> | null) =>
    store.change((tx) =>
      tx.put('sidejob', {
        ...{ id: `${tid}/prune`, tid, job: 'prune', status: S.XSPRUNEDONE, message: '', started: '' },
        ...{ done: 0, total: 0, args: {}, result: { sensitivities_loss_img, sensitivities: {} } },
      }),
    );
  await adopted(null);
  await assert.rejects(async () => pruning.sensitivities(tid), { code: 'not_ready', hint: /Analyse it again/ });
  await adopted({ '0.1': 0.05 });
  assert.deepEqual(pruning.sensitivities(tid), { '0.1': 0.05 });
  mkdirSync(join(h.services.tasks.get(tid).path, 'prune'), { recursive: true });
  await assert.rejects(training.start(await child(h, tid)), { code: 'not_ready', hint: /Analyse T\d+ again/ });
});
