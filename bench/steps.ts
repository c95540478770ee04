/** `npm run bench -- train` and `-- infer`: one step of a network, ours against PyTorch and Paddle. */
import { BestOf, type Contender, median, ProcessContender, race } from './lib/contender.js';
import { compare, comparePeaks, EngineContender, perSecond, type Step, threads } from './lib/engine.js';
import { OnnxContender } from './lib/onnx.js';
import { peer } from './lib/peers.js';
import { add, finish } from './lib/report.js';

const rounds = Number(process.env.BENCH_ROUNDS ?? 5);

interface Network {
  ours: string;
  torch: string;
  batch: number;
  steps: number;
  /** Whether inference is compared with ONNX Runtime on the exported network too. */
  onnx?: true;
  goals: { paddle?: number; tuned?: number; bf16?: number; fp32?: number; gemm?: number; peak?: number };
}

const engine = (name: 'bf16' | 'fp32', command: Step['command'], net: Network, steps: number): EngineContender =>
  new EngineContender(name, {
    command,
    model: net.ours,
    batch: net.batch,
    size: 224,
    precision: name,
    steps,
    warmup: 6,
  });

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

async function trainOne(net: Network): Promise<void> {
  const what = `train ${net.ours} batch ${net.batch}`;
  const bf16 = engine('bf16', 'bench-step', net, net.steps);
  const { macs } = await bf16.turn();
  const gemm = new ProcessContender(
    'gemm',
    peer('torch'),
    ['bench/peers/torch_peer.py', '--mode', 'gemm', '--variant', 'tuned', '--threads', `${threads}`],
    4,
  );
  const result = await race(
    [
      bf16,
      engine('fp32', 'bench-step', net, net.steps),
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
  comparePeaks(`${what}, peak memory`, result, 'bf16', 'PyTorch tuned', net.goals.peak);
}

async function inferOne(net: Network, batch: number): Promise<void> {
  const at = { ...net, batch };
  const what = `infer ${net.ours} batch ${batch}`;
  const steps = batch === 1 ? 20 : 4;
  const result = await race(
    [
      engine('bf16', 'bench-infer', at, steps),
      engine('fp32', 'bench-infer', at, steps),
      torch('PyTorch default', 'infer', 'default', at, steps),
      paddle('Paddle', 'infer', at),
      ...(net.onnx ? [new OnnxContender(net.ours, batch, 224, steps)] : []),
    ],
    rounds,
  );
  if (net.onnx) {
    compare(`${what}, bf16`, result, 'bf16', 'ONNX Runtime', 1);
    compare(`${what}, fp32`, result, 'fp32', 'ONNX Runtime', 1);
  }
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
    onnx: true,
    goals: { paddle: 7, tuned: 1, bf16: 2.3, fp32: 1.15, gemm: 0.7, peak: 0.8 },
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
    onnx: true,
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
