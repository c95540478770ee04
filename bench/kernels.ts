/**
 * `npm run bench -- kernels`: the own CPU kernels against the machine's limits (copies and matrix products, measured in
 * the same run) and against PyTorch's operators (libtorch's of the same release, in the same process, in turns).
 */
import { engineAnswer, threads } from './lib/engine.js';
import { add, finish } from './lib/report.js';

interface Rate {
  copy_bytes_per_second: number;
  gemm_flops_per_second: number;
}

interface Kernel {
  kernel: string;
  precision: 'fp32' | 'bf16';
  seconds: number;
  libtorch_seconds: number;
  bytes: number;
  flops: number;
  bound: 'memory' | 'compute';
  /** Of the limit: what the machine's rates allow for these bytes and FLOPs, over the time taken. */
  share: number;
}

interface Answer {
  kernel_set: string;
  rates: Record<string, Rate>;
  kernels: Kernel[];
}

const SHARE_GOAL = 0.7;
const ms = (seconds: number): string => `${(1000 * seconds).toFixed(2)} ms`;
const giga = (value: number): string => (value / 1e9).toFixed(1);

export async function kernels(): Promise<void> {
  const rounds = process.env.BENCH_ROUNDS ?? '15';
  const batch = process.env.BENCH_BATCH ?? '32';
  const args = ['bench-kernels', '--batch', batch, '--threads', `${threads}`, '--rounds', rounds];
  const answer = engineAnswer(args) as unknown as Answer;
  for (const [precision, rate] of Object.entries(answer.rates)) {
    process.stdout.write(
      `${precision}: copies ${giga(rate.copy_bytes_per_second)} GB/s, products ${giga(rate.gemm_flops_per_second)} GFLOP/s, ${threads} threads, ${answer.kernel_set}\n`,
    );
  }
  for (const row of answer.kernels) {
    const what = `${row.precision} ${row.kernel}`;
    add({
      question: what,
      ours: ms(row.seconds),
      peer: `PyTorch ${ms(row.libtorch_seconds)}`,
      ratio: row.libtorch_seconds / row.seconds,
      goal: 1,
    });
    add({
      question: `${what}, share of ${row.bound} limit`,
      ours: `${giga(row.bytes / row.seconds)} GB/s, ${giga(row.flops / row.seconds)} GF/s`,
      peer: `${giga(row.bytes)} GB, ${giga(row.flops)} GFLOP`,
      ratio: row.share,
      goal: SHARE_GOAL,
    });
  }
  finish('kernels');
}
