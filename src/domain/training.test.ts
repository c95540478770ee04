import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { JobSpec } from '../compute/jobs.gen.js';
import { TaskStatus as T } from './enums.js';
import { failedOutcome } from './testing/compute.js';
import { Harness } from './testing/harness.js';

const step = (epoch: number, at: number, loss: number | null = 0.5) =>
  ({
    type: 'step',
    epoch,
    num_epochs: 4,
    step: at,
    steps: 10,
    metrics: { loss, acc1: 0.5, lr: 0.1 },
    eta: 12.6,
    step_seconds: 0.1,
    data_wait_seconds: 0,
    images_per_second: 40,
  }) as const;

const trainSpec = (h: Harness): Extract<JobSpec, { kind: 'train' }> => {
  const spec = h.compute.submitted.filter((entry) => entry.kind === 'train').at(-1);
  assert.ok(spec?.kind === 'train');
  return spec;
};

describe('starting a training', () => {
  it('is refused with the reason', async (t) => {
    const h = await Harness.start(t);
    const { training, tasks, projects, workspace, datasets } = h.services;
    await assert.rejects(training.start('T0009'), { code: 'not_found' });
    const unsplit = await h.project(await h.dataset(false));
    const early = await h.task(unsplit);
    await assert.rejects(training.start(early), { code: 'not_ready', message: /is not split/ });
    const empty = await datasets.create({ name: 'e', desc: '', type: 'classification' });
    const early2 = await h.task(await h.project(empty.id));
    await assert.rejects(training.start(early2), { code: 'not_ready', message: /is not imported/ });
    const tid = await h.task();
    await assert.rejects(training.start(tid, { pruned_flops: 0.3 }), { code: 'invalid_argument' });
    const pruning = await tasks.create({ pid: tasks.get(tid).pid, parent_id: tid });
    await assert.rejects(training.start(pruning.id), { code: 'not_ready', message: /no best model/ });
    await assert.rejects(training.stop(tid), { code: 'conflict', context: { state: 'XINIT' } });
    await assert.rejects(training.resume(tid), { code: 'conflict' });
    const detection = await projects.create({ name: 'd', desc: '', type: 'detection' });
    const set = await datasets.create({ name: 'd', desc: '', type: 'detection' });
    await workspace.setAttributes('project', detection.id, { did: set.id });
    const other = await tasks.create({ pid: detection.id });
    await assert.rejects(training.start(other.id), { code: 'not_ready', message: /is not imported/ });
    await training.start(tid);
    await assert.rejects(training.start(tid), { code: 'conflict', context: { state: 'XTRAINING' } });
    await assert.rejects(training.resume(tid), { code: 'conflict' });
    assert.equal(tasks.get(early).status, T.XINIT);
  });

  it('is refused when the disk is nearly full', async (t) => {
    const h = await Harness.start(t);
    const tid = await h.task();
    await h.services.close(1000);
    await h.open({ minFreeBytes: 2 ** 60 });
    await assert.rejects(h.services.training.start(tid), { code: 'resource_exhausted', retryable: true });
    assert.equal(h.services.tasks.get(tid).status, T.XINIT);
    assert.match(h.services.health().notices.join(), /nearly full/);
  });

  it('hands the job everything', async (t) => {
    const h = await Harness.start(t);
    const tid = await h.task(undefined, { num_epochs: 4, batch_size: 500, model: 'ResNet18', image_shape: [64, 64] });
    await h.services.training.start(tid);
    const spec = trainSpec(h);
    const { path } = h.services.tasks.get(tid);
    assert.deepEqual(
      [spec.task_id, spec.task_dir, spec.resume, spec.weights, spec.device],
      [tid, path, { from: 'fresh' }, null, { cuda: [], threads: 0, precision: 'auto' }],
    );
    assert.deepEqual(spec.dataset, { format: 'image_folder', root: h.services.datasets.get('D0001').path });
    assert.equal(spec.params.batch_size, 60, 'no more than there are training images');
    assert.match(h.services.training.log(tid).notes?.toString() ?? '', /batch_size 500 is reduced to 60/);
    assert.equal(h.compute.job(`${tid}/train`).request.errLog, join(path, 'err.log'));
  });

  it('says that it waits for a device', async (t) => {
    const h = await Harness.start(t);
    const tid = await h.task();
    await h.services.training.start(tid);
    const job = h.compute.job(`${tid}/train`);
    job.request.onState?.('queued', { queuePosition: 2, message: 'Waiting for cpu, 1 ahead in line.' });
    assert.equal(h.services.training.message(h.services.tasks.get(tid)), 'Waiting for cpu, 1 ahead in line.');
    assert.equal(h.services.training.log(tid).queued, true);
    job.request.onState?.('running', {});
    job.event({ type: 'started', device: 'cpu', precision: 'bf16', notes: [] });
    job.event(step(2, 1));
    assert.equal(h.services.training.message(h.services.tasks.get(tid)), 'Training epoch 2 of 4 on cpu (bf16).');
  });

  it('without the weights it was asked for ends as "download failed" and says where to put which file', async (t) => {
    const h = await Harness.start(t);
    const tid = await h.task(undefined, { model: 'ResNet18', pretrain_weights: 'IMAGENET' });
    h.checkpoint(tid, 'epoch_1');
    await h.services.training.start(tid);
    await h.until(() => h.services.tasks.get(tid).status !== T.XTRAINING);
    const task = h.services.tasks.get(tid);
    assert.equal(task.status, T.XDOWNLOADFAIL);
    assert.match(task.message, /ResNet18.*npm run weights -- add/);
    assert.ok(task.message.includes(join(h.folder, 'weights')));
    assert.equal(h.services.training.log(tid).download_status, 'Failed');
    assert.match(readFileSync(join(task.path, 'err.log'), 'utf8'), /npm run weights/, 'what the page shows');
    assert.deepEqual(await h.services.tasks.savedEpochs(tid), [1], 'earlier checkpoints are still there');
    assert.equal(h.compute.submitted.filter((spec) => spec.kind === 'train').length, 0);
    mkdirSync(join(h.folder, 'weights/ResNet18_IMAGENET'), { recursive: true });
    const file = join(h.folder, 'weights/ResNet18_IMAGENET/model.safetensors');
    writeFileSync(file, '');
    await h.services.training.start(tid);
    await h.until(() => h.compute.jobs.has(`${tid}/train`));
    assert.equal(trainSpec(h).weights, file);
    assert.deepEqual(
      await h.services.tasks.savedEpochs(tid),
      [],
      'a fresh start leaves no checkpoints of an earlier one',
    );
  });

  it('refuses weights by a path outside the allowed folders at once', async (t) => {
    const h = await Harness.start(t);
    const tid = await h.task(undefined, { model: 'ResNet18', pretrain_weights: '/etc/model.pth' });
    await assert.rejects(h.services.training.start(tid), { code: 'forbidden_path' });
    assert.equal(h.services.tasks.get(tid).status, T.XINIT);
    assert.equal(h.compute.submitted.filter((spec) => spec.kind === 'train').length, 0);
  });
});

describe('a running training', () => {
  it('shows its progress in the shapes of the PaddleX API', async (t) => {
    const h = await Harness.start(t);
    const tid = await h.task();
    const { training } = h.services;
    const before = training.log(tid);
    for (const name of [
      'eta',
      'train_metrics',
      'eval_metrics',
      'download_status',
      'train_error',
      'train_stage',
      'running_duration',
    ]) {
      assert.equal(before[name], null, name);
    }
    assert.equal(before.eval_done, false);
    await training.start(tid);
    const job = h.compute.job(`${tid}/train`);
    job.event({ type: 'started', device: 'cpu', precision: 'fp32', notes: ['fc.weight was skipped'] });
    job.event(step(1, 2, null));
    const log = training.log(tid);
    assert.deepEqual(log.train_metrics, { Epoch: 1, Step: 2, loss: 'nan', acc1: 0.5, lr: 0.1 });
    assert.equal(log.eta, 13);
    assert.match(String(log.running_duration), /^0小时0分\d+秒$/);
    assert.equal(log.log_file, join(h.services.tasks.get(tid).path, 'out.log'));
    job.event({ type: 'eval', epoch: 1, metrics: { acc1: 0.75, acc2: 1 } });
    assert.deepEqual(training.log(tid).eval_metrics, { Epoch: 1, acc1: 0.75, acc2: 1 });
    assert.deepEqual(training.log(tid).eval_metircs, training.log(tid).eval_metrics);
    assert.equal(training.log(tid).eval_done, false);
    job.event({ type: 'saved', epoch: 1, path: h.checkpoint(tid, 'epoch_1'), best: true });
    assert.equal(training.log(tid).eval_done, true);
    assert.deepEqual(await training.bestMetric(tid), { acc1: 0.75 });
    await h.until(() => training.curves(tid).length === 2);
    const types = h.events.map((event) => event.type);
    assert.ok(types.includes('progress') && types.includes('eval'));
  });

  it('resumed draws its curves anew from where it begins', async (t) => {
    const h = await Harness.start(t);
    const tid = await h.task();
    const { training } = h.services;
    await training.start(tid);
    for (const [epoch, at] of [
      [1, 5],
      [1, 10],
      [2, 5],
      [2, 10],
    ] as const)
      h.compute.job(`${tid}/train`).event(step(epoch, at, 9));
    h.compute.job(`${tid}/train`).event({ type: 'eval', epoch: 2, metrics: { acc1: 0.1 } });
    await training.stop(tid);
    assert.deepEqual(
      training.curves(tid).map((point) => point.x),
      [2, 5, 10, 15, 20],
    );
    h.checkpoint(tid, 'epoch_1');
    await training.resume(tid, 1);
    h.compute.job(`${tid}/train`).event(step(2, 2, 1));
    await training.stop(tid);
    assert.deepEqual(
      training.curves(tid).map((point) => [point.x, point.values.loss]),
      [
        [5, 9],
        [10, 9],
        [12, 1],
      ],
    );
  });

  it('keeps the newest values over a crash', async (t) => {
    const h = await Harness.start(t);
    const tid = await h.task();
    await h.services.training.start(tid);
    h.compute.job(`${tid}/train`).event({ type: 'started', device: 'cpu', precision: 'fp32', notes: [] });
    h.compute.job(`${tid}/train`).event(step(1, 8));
    h.compute.job(`${tid}/train`).event({ type: 'eval', epoch: 1, metrics: { acc1: 0.7 } });
    await h.until(() => h.services.store.get('training', tid)?.eval_metrics != null);
    await h.crash();
    assert.deepEqual(h.services.training.log(tid).train_metrics, { Epoch: 1, Step: 8, loss: 0.5, acc1: 0.5, lr: 0.1 });
    await h.until(() => h.compute.jobs.has(`${tid}/train`));
    assert.deepEqual(trainSpec(h).resume, { from: 'latest' });
    assert.equal(h.services.tasks.get(tid).status, T.XTRAINING);
  });

  it('ends done, with its best model and all saved epochs', async (t) => {
    const h = await Harness.start(t);
    const tid = await h.trained();
    const { training, tasks } = h.services;
    assert.equal(tasks.get(tid).status, T.XTRAINDONE);
    assert.match(tasks.get(tid).message, /Trained 2 epochs/);
    assert.equal(training.log(tid).train_stage, 'Train Complete');
    assert.deepEqual(await training.allEpochs(tid), {
      key: 'acc1',
      epoch_result_dict: { '1': 0.25, '2': 0.5 },
      best_epoch: 2,
      best_result: 0.5,
    });
  });

  it('ends failed with the true reason, also in err.log', async (t) => {
    const h = await Harness.start(t);
    const tid = await h.task();
    await h.services.training.start(tid);
    h.fail(`${tid}/train`, 'The compute host was ended by signal SIGKILL.');
    await h.until(() => !h.services.training.isLive(tid));
    const task = h.services.tasks.get(tid);
    assert.equal(task.status, T.XTRAINFAIL);
    assert.match(task.message, /SIGKILL/);
    assert.match(readFileSync(join(task.path, 'err.log'), 'utf8'), /SIGKILL/);
    assert.equal(h.services.training.log(tid).train_stage, 'Train Error');
    await h.services.training.start(tid);
    assert.equal(h.services.training.log(tid).train_error, null);
    assert.equal(readFileSync(join(task.path, 'err.log'), 'utf8'), '', 'a fresh start truncates the logs');
  });

  it('is stopped, and resumed from a saved epoch or from the newest state', async (t) => {
    const h = await Harness.start(t);
    const tid = await h.task();
    const { training, tasks } = h.services;
    await training.start(tid);
    await training.stop(tid);
    assert.equal(tasks.get(tid).status, T.XTRAINEXIT);
    assert.match(tasks.get(tid).message, /Stopped after 1 of 4 epochs/);
    await assert.rejects(training.resume(tid), { code: 'not_ready' });
    h.checkpoint(tid, 'epoch_1');
    h.checkpoint(tid, 'epoch_2');
    h.checkpoint(tid, 'epoch_4');
    mkdirSync(join(tasks.get(tid).path, 'output/epoch_3'));
    await assert.rejects(training.resume(tid, 3), {
      code: 'not_ready',
      message: /not saved/,
      hint: 'Saved are: 1, 2, 4.',
    });
    await assert.rejects(training.resume(tid, 4), { code: 'conflict', message: /nothing to resume/ });
    await assert.rejects(training.resume(tid, 0), { code: 'invalid_argument' });
    await training.resume(tid, 1);
    assert.deepEqual(trainSpec(h).resume, { from: 'epoch', epoch: 1 });
    await training.stop(tid);
    const state = (epoch: number): void => {
      const folder = h.checkpoint(tid, `resume/step_${String(epoch * 10 + 5).padStart(8, '0')}`);
      writeFileSync(join(folder, 'state.json'), JSON.stringify({ version: 1, epoch, best: { epoch: 1 } }));
    };
    state(2);
    await assert.rejects(training.resume(tid), { code: 'conflict' }, 'a state before the highest epoch is no choice');
    rmSync(join(tasks.get(tid).path, 'output/epoch_4'), { recursive: true });
    state(3);
    rmSync(join(tasks.get(tid).path, 'output/resume/step_00000035/.success'));
    await training.resume(tid);
    assert.deepEqual(trainSpec(h).resume, { from: 'latest' }, 'the state in the epoch after the highest one');
    assert.equal(trainSpec(h).weights, null);
    await training.stop(tid);
    rmSync(join(tasks.get(tid).path, 'output/resume'), { recursive: true });
    await training.resume(tid);
    assert.deepEqual(trainSpec(h).resume, { from: 'epoch', epoch: 2 }, 'the highest that is completely saved');
    await training.stop(tid);
    for (const epoch of [1, 2]) rmSync(join(tasks.get(tid).path, `output/epoch_${epoch}`), { recursive: true });
    state(0);
    await training.resume(tid);
    assert.deepEqual(trainSpec(h).resume, { from: 'latest' }, 'stopped in the first epoch');
  });

  it('cannot be deleted unless it is stopped by force', async (t) => {
    const h = await Harness.start(t);
    const tid = await h.task();
    const { path, pid } = h.services.tasks.get(tid);
    await h.services.training.start(tid);
    const job = h.compute.job(`${tid}/train`);
    await assert.rejects(h.services.tasks.delete(tid), { code: 'conflict', context: { state: 'XTRAINING' } });
    await assert.rejects(h.services.projects.delete(pid), { code: 'conflict' });
    await h.services.projects.delete(pid, { force: true });
    assert.equal(job.stops, 1);
    assert.ok(!existsSync(path));
    assert.equal(h.services.store.list('training').length, 0);
    job.event(step(1, 9));
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal(h.services.store.list('training').length, 0);
  });
});

it('promise 15: a disk that runs full stops trainings at a checkpoint, with the reason', async (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] });
  const h = await Harness.start(t);
  const tid = await h.task();
  await h.services.training.start(tid);
  await h.services.close(1000);
  await h.open({ minFreeBytes: 2 ** 62 });
  await h.until(() => h.compute.jobs.has(`${tid}/train`));
  t.mock.timers.tick(10_001);
  await h.until(() => h.services.tasks.get(tid).status === T.XTRAINEXIT);
  assert.match(h.services.tasks.get(tid).message, /disk is almost full.*Stopped after/);
  assert.ok(h.events.some((event) => event.type === 'system'));
});

describe('promise 16: a restart of the server', () => {
  it('goes on with queued, begun and resumed trainings where each was', async (t) => {
    const h = await Harness.start(t);
    const pid = await h.project();
    const [queued, begun, resumed] = [await h.task(pid), await h.task(pid), await h.task(pid)];
    await h.services.training.start(queued);
    await h.services.training.start(begun);
    h.compute.job(`${begun}/train`).event({ type: 'started', device: 'cpu', precision: 'fp32', notes: [] });
    await h.services.training.start(resumed);
    await h.services.training.stop(resumed);
    h.checkpoint(resumed, 'epoch_2');
    await h.services.training.resume(resumed, 2);
    await h.until(() => h.services.store.get('training', begun)?.device === 'cpu');
    await h.crash();
    await h.until(() => h.compute.jobs.size === 3);
    const how = Object.fromEntries(
      h.compute.submitted.map((spec) => (spec.kind === 'train' ? [spec.task_id, spec.resume] : [])),
    );
    assert.deepEqual(how[queued], { from: 'fresh' });
    assert.deepEqual(how[begun], { from: 'latest' });
    assert.deepEqual(how[resumed], { from: 'epoch', epoch: 2 });
    h.compute
      .job(`${begun}/train`)
      .end({ type: 'train', stopped: false, completed_epochs: 4, best_epoch: 1, best_metrics: {} });
    await h.until(() => h.services.tasks.get(begun).status === T.XTRAINDONE);
  });

  it('marks them stopped when so configured, or when they cannot go on', async (t) => {
    const h = await Harness.start(t);
    const tid = await h.task();
    await h.services.training.start(tid);
    await h.crash({ resume: 'mark' });
    await h.until(() => h.services.tasks.get(tid).status === T.XTRAINEXIT);
    assert.match(h.services.tasks.get(tid).message, /server ended/);
    await h.services.training.start(tid);
    const { store } = h.services;
    await store.change((tx) => {
      const project = tx.get('project', 'P0001');
      if (project) tx.put('project', { ...project, did: '' });
    });
    await h.crash();
    await h.until(() => h.services.tasks.get(tid).status === T.XTRAINEXIT);
    assert.match(h.services.tasks.get(tid).message, /has no dataset/);
  });

  it('in order leaves them marked for going on', async (t) => {
    const h = await Harness.start(t);
    const tid = await h.task();
    await h.services.training.start(tid);
    h.compute.job(`${tid}/train`).event({ type: 'started', device: 'cpu', precision: 'fp32', notes: [] });
    h.compute.job(`${tid}/train`).event(step(2, 3));
    await h.services.close(2000);
    await h.open();
    assert.equal(h.services.tasks.get(tid).status, T.XTRAINING);
    await h.until(() => h.compute.jobs.has(`${tid}/train`));
    assert.deepEqual(trainSpec(h).resume, { from: 'latest' });
    assert.equal(h.services.training.log(tid).train_metrics?.Step, 3);
    await h.services.training.stop(tid);
    h.compute.jobs.get('x')?.end(failedOutcome('internal', ''));
  });
});
