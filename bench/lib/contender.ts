/** Contenders take turns in one run, because the machine's speed drifts; the median of per-round ratios is what counts. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

export interface Timing {
  /** Work per second (images, or FLOP for matrix products). */
  rate: number;
  peak_bytes?: number;
}

export interface Contender {
  readonly name: string;
  /** Resolves when it has warmed up and idles; before that it would disturb the turns of others. */
  ready?(): Promise<void>;
  /** One turn. */
  turn(): Promise<Timing>;
  close(): void;
}

/** A process that answers `run N` lines with JSON lines; it idles between its turns. */
export class ProcessContender implements Contender {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  #ready: Promise<void> | undefined;

  constructor(
    readonly name: string,
    command: string,
    args: string[],
    private readonly steps: number,
    env: Record<string, string> = {},
  ) {
    this.#child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'], env: { ...process.env, ...env } });
    if (!this.#child.stdout) throw new Error('no output pipe');
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  async #next(): Promise<Record<string, unknown>> {
    for (;;) {
      const line = await this.#lines.next();
      if (line.done) throw new Error(`${this.name} ended early`);
      if (line.value.startsWith('{')) return JSON.parse(line.value) as Record<string, unknown>;
    }
  }

  ready(): Promise<void> {
    this.#ready ??= this.#next().then(() => undefined);
    return this.#ready;
  }

  async turn(): Promise<Timing> {
    await this.ready();
    this.#child.stdin?.write(`run ${this.steps}\n`);
    return (await this.#next()) as unknown as Timing;
  }

  close(): void {
    this.#child.stdin?.end();
    this.#child.kill();
  }
}

/** The faster of several settings, chosen in a first turn. */
export class BestOf implements Contender {
  #best: Contender | undefined;

  constructor(
    readonly name: string,
    private readonly candidates: Contender[],
  ) {}

  async ready(): Promise<void> {
    for (const contender of this.candidates) await contender.ready?.();
  }

  async turn(): Promise<Timing> {
    if (this.#best) return this.#best.turn();
    const trials: { contender: Contender; timing: Timing }[] = [];
    for (const contender of this.candidates) trials.push({ contender, timing: await contender.turn() });
    trials.sort((a, b) => b.timing.rate - a.timing.rate);
    for (const { contender } of trials.slice(1)) contender.close();
    const [first] = trials;
    if (!first) throw new Error(`${this.name} has no settings`);
    this.#best = first.contender;
    return first.timing;
  }

  close(): void {
    for (const contender of this.candidates) contender.close();
  }
}

export const median = (values: number[]): number => {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const [low, high] = [sorted[(sorted.length - 1) >> 1], sorted[middle]];
  return ((low ?? Number.NaN) + (high ?? Number.NaN)) / 2;
};

export interface Rounds {
  rates: Record<string, number[]>;
  peaks: Record<string, number>;
}

/** `rounds` turns of each, in alternation, when all have warmed up. */
export async function race(contenders: Contender[], rounds: number): Promise<Rounds> {
  const result: Rounds = { rates: {}, peaks: {} };
  try {
    for (const contender of contenders) await contender.ready?.();
    for (let round = 0; round < rounds; round += 1) {
      for (const contender of contenders) {
        const timing = await contender.turn();
        const rates = result.rates[contender.name] ?? [];
        result.rates[contender.name] = rates;
        rates.push(timing.rate);
        result.peaks[contender.name] = Math.max(result.peaks[contender.name] ?? 0, timing.peak_bytes ?? 0);
      }
    }
  } finally {
    for (const contender of contenders) contender.close();
  }
  return result;
}

/** Median over rounds of ours/theirs. */
export function ratio(result: Rounds, ours: string, theirs: string): number {
  const a = result.rates[ours] ?? [];
  const b = result.rates[theirs] ?? [];
  return median(a.map((rate, i) => rate / (b[i] ?? Number.NaN)));
}

/** Remembers what was computed: a fast wrong answer is none. */
export class Checked extends ProcessContender {
  result: number | undefined;

  override async turn(): Promise<Timing> {
    const timing = (await super.turn()) as Timing & { result?: number };
    this.result = timing.result;
    return timing;
  }
}

/** A race of contenders that must compute the same. */
export async function raceChecked(contenders: Checked[], rounds: number): Promise<Rounds> {
  const result = await race(contenders, rounds);
  const [first, ...others] = contenders;
  for (const other of others) {
    const difference = Math.abs((first?.result ?? Number.NaN) - (other.result ?? Number.NaN));
    if (!(difference < 1e-4)) {
      throw new Error(`${other.name} computes ${other.result}, but ${first?.name} ${first?.result}`);
    }
  }
  return result;
}
