/** The engine's own timings of steps: `oarlock-engine bench-step` and `bench-infer`. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { type Contender, median, ProcessContender, type Rounds, race, ratio, type Timing } from './contender.js';
import { peer, root } from './peers.js';
import { add } from './report.js';

const binary = join(process.env.CARGO_TARGET_DIR ?? join(root, 'target'), 'release/oarlock-engine');
export const threads = Number(process.env.BENCH_THREADS ?? 2);

export interface Step {
  command: 'bench-step' | 'bench-infer';
  /** The zoo's name. */
  model: string;
  batch: number;
  /** Height and width. */
  size: number;
  precision: 'bf16' | 'fp32';
  steps: number;
  /** The peers are warm after their first turn; a fresh process needs some steps to be. */
  warmup: number;
}

/** The answer of one command of the engine's binary. */
export function engineAnswer(args: string[]): Record<string, unknown> {
  const done = spawnSync(binary, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
  if (done.status !== 0) throw new Error(`${binary} ${args.join(' ')} failed: ${done.stdout}`);
  return JSON.parse(done.stdout.trim().split('\n').at(-1) ?? '{}') as Record<string, unknown>;
}

export interface StepTiming extends Timing {
  /** Multiply-adds of the forward pass of one image. */
  macs: number;
  parameters: number;
}

/** A fresh process in each turn. */
export class EngineContender implements Contender {
  constructor(
    readonly name: string,
    private readonly step: Step,
  ) {}

  async turn(): Promise<StepTiming> {
    const { command, ...options } = this.step;
    const args = [
      command,
      ...Object.entries({ ...options, threads }).flatMap(([key, value]) => [`--${key}`, `${value}`]),
    ];
    const answer = engineAnswer(args) as unknown as {
      images_per_second: number;
      peak_rss_bytes?: number;
      macs: number;
      parameters: number;
    };
    const { images_per_second: rate, peak_rss_bytes, macs, parameters } = answer;
    return { rate, macs, parameters, ...(peak_rss_bytes === undefined ? {} : { peak_bytes: peak_rss_bytes }) };
  }

  close(): void {}
}

export const perSecond = (result: Rounds, name: string, digits = 1): string =>
  `${median(result.rates[name] ?? []).toFixed(digits)} img/s`;

/** A row of `ours` against `theirs`. */
export function compare(
  question: string,
  result: Rounds,
  ours: string,
  theirs: string,
  goal?: number,
  digits?: number,
): void {
  add({
    question,
    ours: perSecond(result, ours, digits),
    peer: `${theirs} ${perSecond(result, theirs, digits)}`,
    ratio: ratio(result, ours, theirs),
    ...(goal === undefined ? {} : { goal }),
  });
}

/** A row of the peak memory of `ours` against `theirs`. */
export function comparePeaks(question: string, result: Rounds, ours: string, theirs: string, goal?: number): void {
  const mib = (name: string): number => (result.peaks[name] ?? 0) / 2 ** 20;
  add({
    question,
    ours: `${mib(ours).toFixed(0)} MiB`,
    peer: `${theirs} ${mib(theirs).toFixed(0)} MiB`,
    ratio: mib(ours) / mib(theirs),
    ...(goal === undefined ? {} : { goal }),
    atMost: true,
  });
}

/** A training step, and what of it is compared with PyTorch in eager mode. */
export interface AgainstTorch {
  net: Pick<Step, 'model' | 'batch' | 'size' | 'steps' | 'warmup'>;
  /** In `bench/peers`; ends when its network is another one. */
  script: string;
  classes: number;
  /** Steps in a turn of the peer. */
  turn: number;
  rounds: number;
  /** Least ratios: bf16 to tuned and default, fp32 to default. */
  goals: { tuned?: number; bf16: number; fp32: number };
}

/** Rows of a training step in both number formats against PyTorch tuned by hand and as it comes. */
export async function trainAgainstTorch({ net, script, classes, turn, rounds, goals }: AgainstTorch): Promise<void> {
  const { model, batch, size } = net;
  const what = `train ${model} ${size} batch ${batch}`;
  const ours = (precision: 'bf16' | 'fp32'): EngineContender =>
    new EngineContender(precision, { command: 'bench-step', ...net, precision });
  const { macs, parameters } = await ours('bf16').turn();
  const options = { task: 'train', model, parameters, macs, classes, batch, size, threads };
  const args = Object.entries(options).flatMap(([key, value]) => [`--${key}`, `${value}`]);
  const torch = (variant: 'tuned' | 'default'): ProcessContender =>
    new ProcessContender(
      `PyTorch ${variant}`,
      peer('torch'),
      [`bench/peers/${script}`, ...args, '--variant', variant],
      turn,
    );
  const result = await race([ours('bf16'), ours('fp32'), torch('tuned'), torch('default')], rounds);
  compare(`${what}, bf16`, result, 'bf16', 'PyTorch tuned', goals.tuned, 2);
  compare(`${what}, bf16`, result, 'bf16', 'PyTorch default', goals.bf16, 2);
  compare(`${what}, fp32`, result, 'fp32', 'PyTorch default', goals.fp32, 2);
  comparePeaks(`${what}, peak memory, bf16`, result, 'bf16', 'PyTorch tuned');
  comparePeaks(`${what}, peak memory, fp32`, result, 'fp32', 'PyTorch default');
}
