/** The real addons in real hosts: what a user's training goes through. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { colourFolder, png } from '../../test/lib/pictures.js';
import { createCompute } from './compute.js';
import { type ComputeConfig, computeConfig } from './config.js';
import type { JobOutcome, JobSpec, Resume, TrainParams } from './jobs.gen.js';
import type { Compute, Lane } from './ports.js';
import { failure, hostPid, openDescriptors, quiet, type Watched, watch, workspace } from './testing/harness.js';

const CLASSES = ['red', 'green', 'blue'];

const params = (epochs: number): TrainParams => ({
  task_type: 'classification',
  model: 'MobileNetV3_small',
  batch_size: 6,
  num_epochs: epochs,
  learning_rate: 0.05,
  lr_policy: 'Piecewise',
  lr_decay_epochs: [],
  warmup_steps: 0,
  warmup_start_lr: 0,
  save_interval_epochs: 1,
  optimizer: 'SGD',
  weight_decay: 1e-4,
  label_smoothing: 0,
  image_shape: [32, 32],
  image_mean: [0.485, 0.456, 0.406],
  image_std: [0.229, 0.224, 0.225],
  horizontal_flip: true,
  horizontal_flip_prob: 0.5,
  vertical_flip: false,
  vertical_flip_prob: 0,
  brightness: false,
  brightness_range: 0,
  brightness_prob: 0,
  contrast: false,
  contrast_range: 0,
  contrast_prob: 0,
  saturation: false,
  saturation_range: 0,
  saturation_prob: 0,
  hue: false,
  hue_range: 0,
  hue_prob: 0,
  rotate: false,
  rotate_prob: 0,
  rotate_range: 0,
  class_balance: false,
  early_stop_patience: 0,
  seed: 7,
});

function realCompute(t: TestContext, config: Partial<ComputeConfig> = {}): Compute {
  const compute = createCompute({ workspace: workspace(), yieldToServer: false, ...config }, quiet);
  t.after(() => compute.close(8_000));
  return compute;
}

function run(compute: Compute, lane: Lane, spec: JobSpec, errLog?: string): Watched {
  return watch(compute, { lane, spec, ...(errLog === undefined ? {} : { errLog }) });
}

async function done<T extends JobOutcome['type']>(job: Watched, type: T): Promise<Extract<JobOutcome, { type: T }>> {
  const outcome = await job.handle.outcome;
  assert.equal(outcome.type, type, JSON.stringify(outcome));
  return outcome as Extract<JobOutcome, { type: T }>;
}

/** A split dataset of 3 × `each` pictures, its last third of each class for validation. */
function dataset(folder: string, each: number): string {
  colourFolder(folder, CLASSES, each);
  const lines = { train: [] as string[], val: [] as string[] };
  for (const [label, name] of CLASSES.entries()) {
    for (let i = 0; i < each; i++) lines[i < (each * 2) / 3 ? 'train' : 'val'].push(`${name}/${name}${i}.png ${label}`);
  }
  writeFileSync(join(folder, 'labels.txt'), `${CLASSES.join('\n')}\n`);
  for (const part of ['train', 'val'] as const)
    writeFileSync(join(folder, `${part}_list.txt`), `${lines[part].join('\n')}\n`);
  return folder;
}

const training = (root: string, taskDir: string, epochs: number, resume: Resume = { from: 'fresh' }): JobSpec => ({
  kind: 'train',
  task_id: 'T0001',
  task_dir: taskDir,
  dataset: { format: 'image_folder', root },
  params: params(epochs),
  weights: null,
  resume,
  device: { cuda: [], threads: 1, precision: 'fp32' },
});

const haveAddons = Object.values(computeConfig({ workspace: '/' })).every(
  (value) => typeof value !== 'string' || existsSync(value),
);
const options = { skip: haveAddons ? false : 'the native addons are not built' };

test('import, split, train, evaluate, predict and export with the real engine', options, async (t) => {
  const compute = realCompute(t);
  const folder = workspace();
  const pictures = colourFolder(join(folder, 'Bilder ä 图'), CLASSES, 12);
  const root = join(folder, 'D0001');
  const task_type = 'classification' as const;
  const importing = run(compute, 'light', { kind: 'import', task_type, source: pictures, dest: root, threads: 1 });
  assert.deepEqual((await done(importing, 'import')).details.labels, [...CLASSES].sort());
  assert.ok(importing.events.some(({ event }) => event.type === 'progress' && event.stage === 'copying'));
  const counts = JSON.parse(await compute.light<string>('splitDataset', root, task_type, false, 0.25, 0, 1)) as Record<
    string,
    number
  >;
  assert.deepEqual([counts.train, counts.val], [27, 9]);
  const taskDir = join(folder, 'T0001');
  mkdirSync(taskDir);
  const trained = run(compute, 'train', training(root, taskDir, 3));
  const outcome = await done(trained, 'train');
  assert.equal(outcome.completed_epochs, 3);
  assert.ok(trained.events.some(({ event }) => event.type === 'step'));
  assert.equal(trained.events.filter(({ event }) => event.type === 'eval').length, 3);
  assert.ok(trained.events.some(({ event }) => event.type === 'saved' && event.best));
  const source = { checkpoint: join(taskDir, 'output/best_model'), epoch: null };
  const device = { cuda: [], threads: 1, precision: 'fp32' as const };

  const report = (await done(run(compute, 'interactive', { kind: 'evaluate', task_type, source, topk: 2 }), 'evaluate'))
    .report;
  assert.deepEqual(report.label_list, [...CLASSES].sort());
  const out_dir = join(folder, 'pictures');
  mkdirSync(out_dir);
  const images = [0, 1].map((n) => ({
    from: 'file' as const,
    path: join(root, `red/red${n}.png`),
    output: `${n}.png`,
  }));
  const spec: JobSpec = { kind: 'predict', task_type, source, images, out_dir, score_threshold: 0.5, device };
  const { items } = await done(run(compute, 'interactive', spec), 'predict');
  assert.deepEqual(
    items.map(({ error }) => error),
    [null, null],
  );
  assert.deepEqual(readdirSync(out_dir).sort(), ['0.png', '1.png']);
  const exported = await done(
    run(compute, 'interactive', { kind: 'export', task_type, source, save_dir: folder }),
    'export',
  );
  assert.ok(readdirSync(exported.path).some((name) => name.endsWith('.onnx')));

  const missing = { checkpoint: join(taskDir, 'output/epoch_99'), epoch: 99 };
  const failed = await failure(
    run(compute, 'interactive', { kind: 'evaluate', task_type, source: missing, topk: 1 }).handle,
  );
  assert.notEqual(failed.code, 'internal');
});

test('promise 16: a training whose host is killed in mid-epoch goes on from its last state', options, async (t) => {
  const compute = realCompute(t);
  const folder = workspace();
  const root = dataset(join(folder, 'D0001'), 24);
  const taskDir = join(folder, 'T0001');
  mkdirSync(taskDir);
  const errLog = join(taskDir, 'err.log');
  const first = run(compute, 'train', training(root, taskDir, 3), errLog);
  await first.first('saved');
  process.kill(hostPid(compute, first.id), 'SIGKILL');
  const failed = await failure(first.handle);
  assert.equal(failed.context.signal, 'SIGKILL');
  assert.match(readFileSync(errLog, 'utf8'), /SIGKILL/);

  const second = run(compute, 'train', training(root, taskDir, 3, { from: 'latest' }), errLog);
  const step = await second.first('step');
  assert.ok(step.type === 'step' && step.epoch > 1);
  const start = Date.now();
  await second.handle.stop();
  const seconds = (Date.now() - start) / 1000;
  const stopped = await done(second, 'train');
  assert.ok(stopped.stopped && seconds < 10, `stopped after ${seconds} s`);

  const third = await done(run(compute, 'train', training(root, taskDir, 3, { from: 'latest' }), errLog), 'train');
  assert.deepEqual([third.stopped, third.completed_epochs], [false, 3]);
});

test('promise 27: pool threads that come and go with the addon leave nothing behind', options, async (t) => {
  const compute = realCompute(t, { lightIdleMs: 1 });
  const picture = png(2, 1, 3, new Uint8Array(6));
  const threads = (): number => readdirSync('/proc/self/task').length;
  const round = async (): Promise<void> => {
    const answers = await Promise.all([1, 2, 3].map(() => compute.light<string>('inspectImage', picture)));
    assert.deepEqual(JSON.parse(answers[0] ?? ''), { format: 'png', width: 2, height: 1, channels: 3, depth: 8 });
    for (let n = 0; n < 100 && threads() > idle; n++) await sleep(10);
  };
  const idle = threads();
  await round();
  const before = openDescriptors();
  for (let n = 0; n < 10; n++) await round();
  assert.ok(threads() <= idle + 1, `${threads()} threads, ${idle} before`);
  assert.ok(openDescriptors() <= before + 6, `${openDescriptors()} descriptors, ${before} before`);
});
