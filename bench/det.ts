/** `npm run bench -- det`: evaluation of detections against pycocotools, suppression of boxes against torchvision. */
import { join } from 'node:path';
import { Checked, median, raceChecked, ratio } from './lib/contender.js';
import { detectionResults } from './lib/detections.js';
import { type Peer, peer, root } from './lib/peers.js';
import { add, finish } from './lib/report.js';

const binary = join(process.env.CARGO_TARGET_DIR ?? join(root, 'target'), 'release/examples/detection_rate');
const rounds = Number(process.env.BENCH_ROUNDS ?? 5);
const threads = Number(process.env.BENCH_THREADS ?? 2);

type Task = 'coco' | 'nms';

const ours = (task: Task, folder: string, steps: number, count: number): Checked =>
  new Checked(
    count === 1 ? 'ours' : `ours on ${count} threads`,
    binary,
    ['--task', task, '--folder', folder, '--threads', `${count}`],
    steps,
  );

const theirs = (task: Task, name: string, by: Peer, folder: string, steps: number): Checked =>
  new Checked(name, peer(by), ['bench/peers/det_peer.py', '--task', task, '--folder', folder], steps);

async function evaluation(folder: string, images: number, found: number): Promise<void> {
  const many = `ours on ${threads} threads`;
  const contenders = [
    ours('coco', folder, 3, 1),
    ours('coco', folder, 3, threads),
    theirs('coco', 'pycocotools', 'paddlex', folder, 1),
  ];
  // A turn of pycocotools takes a minute or more.
  const result = await raceChecked(contenders, Math.min(rounds, 3));
  const seconds = (name: string): string => `${(images / median(result.rates[name] ?? [])).toFixed(2)} s`;
  const peak = (name: string): string => `${((result.peaks[name] ?? 0) / 2 ** 20).toFixed(0)} MiB`;
  const what = `COCO evaluation of ${images} × ${found}`;
  for (const name of ['ours', many]) {
    add({
      question: `${what}, ${name === 'ours' ? 'one thread' : `${threads} threads`}`,
      ours: seconds(name),
      peer: `pycocotools ${seconds('pycocotools')}`,
      ratio: ratio(result, name, 'pycocotools'),
      goal: 10,
    });
  }
  add({
    question: `${what}, peak memory`,
    ours: peak(many),
    peer: `pycocotools ${peak('pycocotools')}`,
    ratio: (result.peaks[many] ?? 0) / (result.peaks.pycocotools ?? Number.NaN),
    atMost: true,
  });
}

async function suppression(folder: string, boxes: number): Promise<void> {
  const contenders = [ours('nms', folder, 40, 1), theirs('nms', 'torchvision', 'torch', folder, 40)];
  const result = await raceChecked(contenders, rounds);
  const milliseconds = (name: string): string => `${((1000 * boxes) / median(result.rates[name] ?? [])).toFixed(2)} ms`;
  add({
    question: `suppression of ${boxes} boxes`,
    ours: milliseconds('ours'),
    peer: `torchvision ${milliseconds('torchvision')}`,
    ratio: ratio(result, 'ours', 'torchvision'),
    goal: 1,
  });
}

export async function detection(): Promise<void> {
  const [images, found, boxes] = [5000, 100, 10_000];
  const folder = detectionResults(images, found, boxes);
  await suppression(folder, boxes);
  await evaluation(folder, images, found);
  finish('det');
}
