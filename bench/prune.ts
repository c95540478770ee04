/** `npm run bench -- prune`: sensitivity analysis, speed of pruned models, int8 against fp32. */
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as ort from 'onnxruntime-node';
import { median, ProcessContender } from './lib/contender.js';
import { jpegFolder } from './lib/images.js';
import { peer, root } from './lib/peers.js';
import { add, finish } from './lib/report.js';

const binary = join(process.env.CARGO_TARGET_DIR ?? join(root, 'target'), 'release/oarlock-engine');
const threads = Number(process.env.BENCH_THREADS ?? 2);
const rounds = Number(process.env.BENCH_ROUNDS ?? 5);
/** Validation images of the analyses. */
const images = Number(process.env.BENCH_IMAGES ?? 128);
/** Layers that PaddleSlim measures; its time is scaled to all of them. */
const peerLayers = 2;
const size = 224;

interface Network {
  ours: string;
  paddle: string;
}

const networks: Network[] = [
  { ours: 'ResNet18', paddle: 'resnet18' },
  { ours: 'MobileNetV2', paddle: 'mobilenet_v2' },
];

type Json = Record<string, unknown>;

/** A command of the engine; its last line is the answer. */
function engine(command: string, options: Record<string, string | number>): Json {
  const args = [command, ...Object.entries(options).flatMap(([key, value]) => [`--${key}`, `${value}`])];
  const done = spawnSync(binary, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'], maxBuffer: 2 ** 28 });
  const last = done.stdout.trim().split('\n').at(-1) ?? '';
  if (done.status !== 0) throw new Error(`${binary} ${args.join(' ')}: ${last}`);
  return JSON.parse(last) as Json;
}

function withSpec(base: string, command: string, spec: object, options: Record<string, string> = {}): Json {
  const file = join(base, 'spec.json');
  writeFileSync(file, JSON.stringify(spec));
  return engine(command, { spec: file, ...options });
}

/** A dataset of photograph-like JPEGs in four classes: 15 to train with each, the rest to validate. */
function dataset(base: string): string {
  const folder = join(base, 'data');
  const pictures = jpegFolder('prune', 4, 15 + Math.ceil(images / 4), 500, 375);
  mkdirSync(folder);
  const classes = readdirSync(pictures).sort();
  const lists: Record<'train' | 'val', string[]> = { train: [], val: [] };
  for (const [id, name] of classes.entries()) {
    symlinkSync(join(pictures, name), join(folder, name));
    for (const [i, file] of readdirSync(join(pictures, name)).sort().entries()) {
      lists[i < 15 ? 'train' : 'val'].push(`${name}/${file} ${id}`);
    }
  }
  writeFileSync(join(folder, 'labels.txt'), classes.map((name) => `${name}\n`).join(''));
  writeFileSync(join(folder, 'train_list.txt'), lists.train.map((line) => `${line}\n`).join(''));
  writeFileSync(join(folder, 'val_list.txt'), lists.val.map((line) => `${line}\n`).join(''));
  return folder;
}

const device = { cuda: [], threads, precision: 'fp32' };

/** One short training; `more` is what a pruned one has in addition. Returns the best model's folder. */
function train(base: string, task: string, model: string, root: string, more: object = {}): string {
  const folder = join(base, task);
  mkdirSync(folder);
  const params = {
    ...{ task_type: 'classification', model, batch_size: 12, num_epochs: 2, learning_rate: 0.01, lr_policy: 'Cosine' },
    ...{ lr_decay_epochs: [], warmup_steps: 0, warmup_start_lr: 0, save_interval_epochs: 2, optimizer: 'SGD' },
    ...{ weight_decay: 1e-4, label_smoothing: 0, image_shape: [size, size], early_stop_patience: 0, seed: 1 },
    ...{ image_mean: [0.485, 0.456, 0.406], image_std: [0.229, 0.224, 0.225], class_balance: false },
    ...{ horizontal_flip: true, horizontal_flip_prob: 0.5, vertical_flip: false, vertical_flip_prob: 0 },
    ...{ brightness: false, brightness_range: 0, brightness_prob: 0, contrast: false, contrast_range: 0 },
    ...{ contrast_prob: 0, saturation: false, saturation_range: 0, saturation_prob: 0, hue: false, hue_range: 0 },
    ...{ hue_prob: 0, rotate: false, rotate_prob: 0, rotate_range: 0 },
  };
  withSpec(base, 'train', {
    ...{ task_id: task, task_dir: folder, dataset: { format: 'image_folder', root }, params },
    ...{ weights: null, resume: { from: 'fresh' }, device: { ...device, precision: 'auto' } },
    ...more,
  });
  return join(folder, 'output/best_model');
}

type Losses = Record<string, [number, number][]>;

/** Analysis, ours against brute force and PaddleSlim. Returns the table's file. */
async function sensitivity(base: string, net: Network, checkpoint: string, data: string): Promise<string> {
  const spec = {
    ...{ task_type: 'classification', source: { checkpoint, epoch: null }, batch_size: 8, device },
    ...{ dataset: { format: 'image_folder', root: data }, out_dir: join(base, `${net.ours}-prune`) },
  };
  const ours = withSpec(base, 'sensitivity', spec);
  const brute = withSpec(base, 'sensitivity', spec, { brute: 'true' });
  const seconds = [ours, brute].map((run) => Number(run.seconds));
  const [fast = Number.NaN, slow = Number.NaN] = seconds;
  const layers = Number(ours.layers);
  const question = `sensitivities of ${net.ours}, ${images} images`;
  const mine = `${layers} × 9 in ${fast.toFixed(1)} s`;
  add({ question, ours: mine, peer: `brute force ${slow.toFixed(1)} s`, ratio: slow / fast, goal: 2.5 });
  const table = (JSON.parse(readFileSync(String(ours.path), 'utf8')) as { sensitivities: Losses }).sensitivities;
  const apart = Object.entries(brute.sensitivities as Losses).flatMap(([layer, points]) =>
    points.map(([, loss], i) => Math.abs(loss - (table[layer]?.[i]?.[1] ?? Number.NaN)) * Number(brute.base)),
  );
  add({
    question: `${net.ours}: greatest difference in acc1`,
    ours: `base ${Number(ours.base).toFixed(4)}`,
    peer: `brute force ${Number(brute.base).toFixed(4)}`,
    ratio: Math.max(...apart),
    goal: 0.001,
    atMost: true,
  });
  const slim = new ProcessContender(
    'PaddleSlim',
    peer('paddleslim'),
    [
      ...['bench/peers/paddleslim_peer.py', '--model', net.paddle, '--folder', data, '--size', `${size}`],
      ...['--layers', `${peerLayers}`, '--threads', `${threads}`, '--batch', '8'],
    ],
    1,
    { OMP_NUM_THREADS: `${threads}` },
  );
  try {
    const turn = (await slim.turn()) as unknown as { seconds: number; evaluations: number };
    const whole = (turn.seconds * layers) / peerLayers;
    const them = `PaddleSlim ${whole.toFixed(0)} s, by ${peerLayers} layers`;
    add({ question, ours: mine, peer: them, ratio: whole / fast, goal: 15 });
  } finally {
    slim.close();
  }
  return String(ours.path);
}

/** Inference of a pruned model against its parent's, in turns. */
function speed(net: Network, parent: string, pruned: string): void {
  for (const precision of ['fp32', 'bf16']) {
    const seconds: [number, number][] = [];
    let [before, after] = [1, 1];
    for (let round = 0; round < rounds; round += 1) {
      const [slow, fast] = [parent, pruned].map((checkpoint) =>
        engine('bench-infer', {
          ...{ checkpoint, model: net.ours, batch: 16, size, precision, threads, steps: 6, warmup: 4 },
        }),
      );
      [before, after] = [Number(slow?.macs), Number(fast?.macs)];
      seconds.push([Number(slow?.seconds_median), Number(fast?.seconds_median)]);
    }
    const saved = 1 - after / before;
    const share = median(seconds.map(([slow, fast]) => (1 - fast / slow) / saved));
    const rate = (index: 0 | 1): string => (16 / median(seconds.map((pair) => pair[index]))).toFixed(1);
    add({
      question: `${net.ours} −${(100 * saved).toFixed(0)} % FLOPs, ${precision}: share of it saved`,
      ours: `${rate(1)} img/s`,
      peer: `parent ${rate(0)} img/s`,
      ratio: share,
      ...(net.ours === 'ResNet18' ? { goal: 0.7 } : {}),
    });
  }
}

/** Median latency of one image in onnxruntime, of several models in turns. */
async function latencies(files: string[]): Promise<number[]> {
  const options = { intraOpNumThreads: threads, executionProviders: ['cpu'] };
  const sessions = await Promise.all(files.map((file) => ort.InferenceSession.create(file, options)));
  const image = new ort.Tensor(
    'float32',
    Float32Array.from({ length: 3 * size * size }, (_, i) => (i % 255) / 255),
    [...[1, 3, size, size]],
  );
  const times = files.map((): number[] => []);
  for (let run = 0; run < 40; run += 1) {
    for (const [i, session] of sessions.entries()) {
      const start = performance.now();
      await session.run({ image });
      if (run >= 5) times[i]?.push(performance.now() - start);
    }
  }
  await Promise.all(sessions.map((session) => session.release()));
  return times.map(median);
}

/** int8 export against fp32 export. */
async function quantized(base: string, net: Network, checkpoint: string, data: string): Promise<void> {
  const spec = { kind: 'export', task_type: 'classification', source: { checkpoint, epoch: null }, threads };
  const quant = { quant: { method: 'entropy', images: 32 }, dataset: { format: 'image_folder', root: data } };
  const [plain, small] = ['fp32', 'int8'].map((kind) => join(base, `${net.ours}-${kind}`)) as [string, string];
  withSpec(base, 'job', { ...spec, save_dir: plain });
  withSpec(base, 'job', { ...spec, save_dir: small, ...quant });
  const files = [plain, small].map((folder) => join(folder, 'inference_model/model.onnx'));
  const missing = files.find((file) => !existsSync(file));
  if (missing) throw new Error(`the export left no ${missing}`);
  const [fp32 = Number.NaN, int8 = Number.NaN] = await latencies(files);
  add({
    question: `${net.ours} in onnxruntime, batch 1, latency`,
    ours: `int8 ${int8.toFixed(1)} ms`,
    peer: `fp32 ${fp32.toFixed(1)} ms`,
    ratio: int8 / fp32,
    atMost: true,
  });
}

export async function prune(): Promise<void> {
  const base = mkdtempSync(join(tmpdir(), 'oarlock-bench-'));
  try {
    const data = dataset(base);
    for (const net of networks) {
      const parent = train(base, net.ours, net.ours, data);
      const sensitivities = await sensitivity(base, net, parent, data);
      const pruned = train(base, `${net.ours}-pruned`, net.ours, data, {
        weights: parent,
        prune: { sensitivities, target: { by: 'flops', value: 0.4 } },
      });
      speed(net, parent, pruned);
      await quantized(base, net, parent, data);
    }
  } finally {
    rmSync(base, { recursive: true, force: true });
  }
  finish('prune');
}
