/** `npm run bench -- data`: from files to batches, ours against torchvision with Pillow and against OpenCV. */
import { join } from 'node:path';
import { type Contender, median, ProcessContender, type Rounds, race, ratio } from './lib/contender.js';
import { labeledFolder } from './lib/images.js';
import { peer, root } from './lib/peers.js';
import { add, finish } from './lib/report.js';

const binary = join(process.env.CARGO_TARGET_DIR ?? join(root, 'target'), 'release/examples/data_rate');
const rounds = Number(process.env.BENCH_ROUNDS ?? 5);

type Task = 'classify' | 'detect' | 'segment';

interface Question {
  task: Task;
  what: string;
  folder: string;
  /** Images of one turn of ours, and of a peer. */
  images: { ours: number; peer: number };
  goals: { pillow?: number; opencv: number };
}

const ours = (question: Question, threads: number): Contender =>
  new ProcessContender(
    threads === 1 ? 'ours' : `ours on ${threads} threads`,
    binary,
    ['--task', question.task, '--folder', question.folder, '--threads', `${threads}`],
    question.images.ours * threads,
  );

/** From the second epoch on: decoded pictures come from the cache, as far as memory allows. */
const cached = (question: Question): Contender =>
  new ProcessContender(
    'ours, cached',
    binary,
    ['--task', question.task, '--folder', question.folder, '--cache'],
    question.images.ours * 2,
  );

const theirs = (question: Question, variant: 'pillow' | 'opencv'): Contender =>
  new ProcessContender(
    variant,
    peer(variant === 'pillow' ? 'torch' : 'opencv'),
    ['bench/peers/data_peer.py', '--variant', variant, '--task', question.task, '--folder', question.folder],
    question.images.peer,
    { OMP_NUM_THREADS: '1' },
  );

const perSecond = (result: Rounds, name: string): string => `${median(result.rates[name] ?? []).toFixed(1)} img/s`;

async function ask(question: Question): Promise<void> {
  const { goals } = question;
  const peers = goals.pillow === undefined ? (['opencv'] as const) : (['pillow', 'opencv'] as const);
  const contenders = [
    ours(question, 1),
    ours(question, 2),
    cached(question),
    ...peers.map((variant) => theirs(question, variant)),
  ];
  const result = await race(contenders, rounds);
  const row = (what: string, one: string, other: string, label: string, goal?: number): void =>
    add({
      question: `${question.what}, ${what}`,
      ours: perSecond(result, one),
      peer: `${label} ${perSecond(result, other)}`,
      ratio: ratio(result, one, other),
      ...(goal === undefined ? {} : { goal }),
    });
  const labels = { pillow: 'torchvision with Pillow', opencv: 'OpenCV' };
  for (const variant of peers) row('one core', 'ours', variant, labels[variant], goals[variant] ?? 1);
  row('later epochs', 'ours, cached', 'opencv', labels.opencv);
  const two = 'ours on 2 threads';
  row('two threads', two, 'ours', 'one thread', question.task === 'classify' ? 1.9 : undefined);
  const mib = (name: string): string => `${((result.peaks[name] ?? 0) / 2 ** 20).toFixed(0)} MiB`;
  add({
    question: `${question.what}, peak memory`,
    ours: `${mib(two)} (2 threads)`,
    peer: `OpenCV ${mib('opencv')} (1 thread)`,
    ratio: (result.peaks[two] ?? 0) / (result.peaks.opencv ?? Number.NaN),
    atMost: true,
  });
}

/**
 * At full size most of the time goes into the entropy-coded data of JPEG, of which no bit can be left out: ours takes
 * about half of libjpeg-turbo's time for them (`native/imaging/src/jpeg/baseline.rs`), which bounds the ratios on small
 * photographs. At an eighth of the size we step over the coefficients that do not count, see `jpeg/eighth.rs`.
 */
export async function data(): Promise<void> {
  const photographs = labeledFolder('labeled', 200, 500, 375);
  const large = labeledFolder('labeled', 8, 4000, 3000);
  // Decode, random resized crop, flip, four colour changes.
  const what = 'input of 224';
  await ask({
    task: 'classify',
    what: `500×375: ${what}`,
    folder: photographs,
    images: { ours: 1500, peer: 400 },
    goals: { pillow: 3, opencv: 2 },
  });
  await ask({
    task: 'classify',
    what: `4000×3000: ${what}`,
    folder: large,
    images: { ours: 64, peer: 8 },
    goals: { pillow: 8, opencv: 5 },
  });
  await ask({
    task: 'detect',
    what: 'detection input of 608',
    folder: photographs,
    images: { ours: 800, peer: 200 },
    goals: { opencv: 3 },
  });
  await ask({
    task: 'segment',
    what: 'segmentation input of 512',
    folder: photographs,
    images: { ours: 800, peer: 200 },
    goals: { opencv: 3 },
  });
  finish('data');
}
