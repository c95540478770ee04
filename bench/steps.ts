/** `npm run bench -- train` and `-- infer`: one step of a network, ours against PyTorch and Paddle. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import {
  BestOf,
  type Contender,
  median,
  ProcessContender,
  type Rounds,
  race,
  ratio,
  type Timing,
} from './lib/contender.js';
import { peer, root } from './lib/peers.js';
import { add, finish } from './lib/report.js';

const binary = join(process.env.CARGO_TARGET_DIR ?? join(root, 'target'), 'release/oarlock-engine');
const threads = Number(process.env.BENCH_THREADS ?? 2);
const rounds = Number(process.env.BENCH_ROUNDS ?? 5);

interface Network {
  ours: string;
  torch: string;
  batch: number;
  steps: number;
  goals: { paddle?: number; tuned?: number; bf16?: number; fp32?: number; gemm?: number };
}

class EngineContender implements Contender {
  constructor(
    readonly name: string,
    private readonly command: string,
    private readonly net: Network,
    private readonly precision: string,
    private readonly steps: number,
  ) {}

  async turn(): Promise<Timing & { macs?: number }> {
    const args = [
      this.command,
      '--model',
      this.net.ours,
      '--batch',
      this.net.batch,
      '--size',
      224,
      '--precision',
      this.precision,
    ];
    // The peers are warm after their first turn; a fresh process needs some steps to be.
    args.push('--steps', this.steps, '--warmup', 6, '--threads', threads);
    const done = spawnSync(binary, args.map(String), { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
    if (done.status !== 0) throw new Error(`${binary} ${args.join(' ')} failed`);
    const answer = JSON.parse(done.stdout.trim().split('\n').at(-1) ?? '{}') as {
      images_per_second: number;
      peak_rss_bytes?: number;
      macs?: number;
    };
    return {
      rate: answer.images_per_second,
      ...(answer.peak_rss_bytes === undefined ? {} : { peak_bytes: answer.peak_rss_bytes }),
      ...(answer.macs === undefined ? {} : { macs: answer.macs }),
    };
  }

  close(): void {}
}

const torch = (name: string, mode: string, variant: string, net: Network, steps: number): Contender =>
  new ProcessContender(
    name,
    peer('torch'),
    [
      'bench/peers/torch_peer.py',
      '--mode',
      mode,
      '--variant',
      variant,
      '--model',
      net.torch,
      '--batch',
      `${net.batch}`,
      '--threads',
      `${threads}`,
    ],
    steps,
  );

const paddle = (name: string, mode: string, net: Network): Contender =>
  new BestOf(
    name,
    [0, 1].map(
      (onednn) =>
        new ProcessContender(
          `${name} oneDNN=${onednn}`,
          peer('paddle'),
          [
            'bench/peers/paddle_peer.py',
            '--mode',
            mode,
            '--model',
            net.torch,
            '--batch',
            `${net.batch}`,
            '--threads',
            `${threads}`,
            '--onednn',
            `${onednn}`,
          ],
          1,
          { OMP_NUM_THREADS: `${threads}` },
        ),
    ),
  );

const perSecond = (result: Rounds, name: string): string => `${median(result.rates[name] ?? []).toFixed(1)} img/s`;

function compare(question: string, result: Rounds, ours: string, theirs: string, goal?: number): void {
  add({
    question,
    ours: perSecond(result, ours),
    peer: `${theirs} ${perSecond(result, theirs)}`,
    ratio: ratio(result, ours, theirs),
    ...(goal === undefined ? {} : { goal }),
  });
}

async function trainOne(net: Network): Promise<void> {
  const what = `train ${net.ours} batch ${net.batch}`;
  const bf16 = new EngineContender('bf16', 'bench-step', net, 'bf16', net.steps);
  const macs = (await bf16.turn()).macs ?? 0;
  const gemm = new ProcessContender(
    'gemm',
    peer('torch'),
    ['bench/peers/torch_peer.py', '--mode', 'gemm', '--variant', 'tuned', '--threads', `${threads}`],
    4,
  );
  const result = await race(
    [
      bf16,
      new EngineContender('fp32', 'bench-step', net, 'fp32', net.steps),
      torch('PyTorch tuned', 'train', 'tuned', net, net.steps),
      torch('PyTorch default', 'train', 'default', net, net.steps),
      paddle('Paddle', 'train', net),
      gemm,
    ],
    rounds,
  );
  compare(`${what}, bf16`, result, 'bf16', 'Paddle', net.goals.paddle);
  compare(`${what}, bf16`, result, 'bf16', 'PyTorch tuned', net.goals.tuned);
  compare(`${what}, bf16`, result, 'bf16', 'PyTorch default', net.goals.bf16);
  compare(`${what}, fp32`, result, 'fp32', 'PyTorch default', net.goals.fp32);
  // Forward and backward of a network take three times its forward multiply-adds, two FLOP each.
  const limit = median(result.rates.gemm ?? []) / (6 * macs);
  if (macs > 0) {
    add({
      question: `${what}, share of the matrix-product rate`,
      ours: perSecond(result, 'bf16'),
      peer: `bf16 product allows ${limit.toFixed(1)} img/s`,
      ratio: median(result.rates.bf16 ?? []) / limit,
      ...(net.goals.gemm === undefined ? {} : { goal: net.goals.gemm }),
    });
  }
  const mib = (name: string): number => (result.peaks[name] ?? 0) / 2 ** 20;
  add({
    question: `${what}, peak memory`,
    ours: `${mib('bf16').toFixed(0)} MiB`,
    peer: `PyTorch tuned ${mib('PyTorch tuned').toFixed(0)} MiB`,
    ratio: mib('bf16') / mib('PyTorch tuned'),
    atMost: true,
  });
}

async function inferOne(net: Network, batch: number): Promise<void> {
  const at = { ...net, batch };
  const what = `infer ${net.ours} batch ${batch}`;
  const steps = batch === 1 ? 20 : 4;
  const result = await race(
    [
      new EngineContender('bf16', 'bench-infer', at, 'bf16', steps),
      new EngineContender('fp32', 'bench-infer', at, 'fp32', steps),
      torch('PyTorch default', 'infer', 'default', at, steps),
      paddle('Paddle', 'infer', at),
    ],
    rounds,
  );
  compare(`${what}, bf16`, result, 'bf16', 'PyTorch default', 2.5);
  compare(`${what}, bf16`, result, 'bf16', 'Paddle', 10);
  compare(`${what}, fp32`, result, 'fp32', 'PyTorch default');
}

const networks: Network[] = [
  {
    ours: 'ResNet50',
    torch: 'resnet50',
    batch: 16,
    steps: 3,
    goals: { paddle: 7, tuned: 1, bf16: 2.3, fp32: 1.15, gemm: 0.7 },
  },
  {
    ours: 'ResNet18',
    torch: 'resnet18',
    batch: 32,
    steps: 3,
    goals: { paddle: 8, tuned: 1, bf16: 2.3, fp32: 1.15, gemm: 0.85 },
  },
  {
    ours: 'MobileNetV3_small',
    torch: 'mobilenet_v3_small',
    batch: 32,
    steps: 4,
    goals: { tuned: 1, bf16: 2.3, fp32: 1.15 },
  },
  {
    ours: 'MobileNetV2',
    torch: 'mobilenet_v2',
    batch: 32,
    steps: 3,
    goals: { paddle: 5, tuned: 2, bf16: 3 },
  },
];

export async function train(): Promise<void> {
  for (const net of networks) await trainOne(net);
  finish('train');
}

export async function infer(): Promise<void> {
  for (const net of networks) for (const batch of [16, 1]) await inferOne(net, batch);
  finish('infer');
}
