/** The curves and last values of an old task, read once from the lines that PaddleX wrote to out.log. */
import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import type { CurvePoint, MetricValues } from '../records.js';

export interface TrainHistory {
  points: CurvePoint[];
  /** `Epoch`, `Step` and the metrics of the last logged step. */
  train: MetricValues | null;
  /** `Epoch` and the metrics of the last evaluation. */
  eval: MetricValues | null;
  /** Metrics by epoch. */
  evals: Map<number, MetricValues>;
  numEpochs: number;
  steps: number | null;
  best: { epoch: number; metrics: MetricValues } | null;
  complete: boolean;
  error: string | null;
  /** Seconds from the first line to the last. */
  seconds: number | null;
}

/** Longer lines are no log lines; longer files are sampled by their reader, not by us. */
const MAX_LINE = 20_000;
const MAX_POINTS = 50_000;

// biome-ignore lint/suspicious/noControlCharactersInRegex: PaddleX colours its lines with terminal codes
const COLOUR = /\x1b\[[0-9;]*m/g;
const PREFIX = /^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) \[(\w+)\]\t/;

/** Reads a log; one that is missing has an empty history. */
export async function readTrainLog(path: string): Promise<TrainHistory> {
  const history: TrainHistory = {
    points: [],
    train: null,
    eval: null,
    evals: new Map(),
    numEpochs: 0,
    steps: null,
    best: null,
    complete: false,
    error: null,
    seconds: null,
  };
  let first: number | undefined;
  const lines = createInterface({
    input: createReadStream(path, { encoding: 'utf8' }),
    crlfDelay: Number.POSITIVE_INFINITY,
  });
  try {
    for await (const raw of lines) {
      if (raw.length > MAX_LINE) continue;
      const line = raw.replace(COLOUR, '');
      const prefix = PREFIX.exec(line);
      if (prefix === null) continue;
      const at = localTime(prefix[1] as string);
      first ??= at;
      history.seconds = Math.max(0, (at - first) / 1000);
      readLine(line.slice(prefix[0].length), at, history);
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  return history;
}

function localTime(text: string): number {
  const [year, month, day, hour, minute, second] = text.split(/[- :]/).map(Number) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  return new Date(year, month - 1, day, hour, minute, second).getTime();
}

function readLine(text: string, at: number, history: TrainHistory): void {
  if (text.startsWith('[TRAIN] Epoch=')) trainLine(text.slice(8), at, history);
  if (text.startsWith('[EVAL] Finished,')) evalLine(text.slice(16), at, history);
  const best = /^Current evaluated best model on eval_dataset is epoch_(\d+), (\w+)=([-+.\de]+)/.exec(text);
  if (best !== null) {
    const value = Number(best[3]);
    history.best = { epoch: Number(best[1]), metrics: { [best[2] as string]: Number.isFinite(value) ? value : null } };
  }
  if (text.startsWith('Train Complete!')) history.complete = true;
  if (text.startsWith('Training stop with error!')) history.error = text.trim();
}

/** `loss=0.41, acc1=0.87` → values; arrays and texts are left out, a number that is not finite is null. */
function values(text: string): MetricValues {
  const read: MetricValues = {};
  for (const part of text.replace(/\[[^\]]*\]/g, '').split(',')) {
    const match = /^\s*([\w-]+)=\s*(\S+)\s*\.?\s*$/.exec(part);
    if (match === null || read[match[1] as string] !== undefined) continue;
    const word = (match[2] as string).replace(/\.$/, '');
    if (/^[-+]?(nan|inf)$/i.test(word)) read[match[1] as string] = null;
    else if (/^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(word)) read[match[1] as string] = Number(word);
  }
  return read;
}

const SKIPPED = new Set(['Epoch', 'Step', 'time_each_step', 'data_wait', 'eta']);

function trainLine(text: string, at: number, history: TrainHistory): void {
  const counts = /^Epoch=(\d+)\/(\d+), Step=(\d+)\/(\d+)/.exec(text);
  if (counts === null) return;
  const [epoch, numEpochs, step, steps] = counts.slice(1).map(Number) as [number, number, number, number];
  const all = values(text.slice(counts[0].length + 1));
  const metrics = Object.fromEntries(Object.entries(all).filter(([key]) => !SKIPPED.has(key)));
  history.numEpochs = numEpochs;
  history.steps = steps;
  history.train = { Epoch: epoch, Step: step, ...metrics };
  push(history, { series: 'train', x: (epoch - 1) * steps + step, values: metrics, at });
}

function evalLine(text: string, at: number, history: TrainHistory): void {
  const { Epoch: epoch, ...metrics } = values(text.replace(/^\s*/, ''));
  if (typeof epoch !== 'number') return;
  history.eval = { Epoch: epoch, ...metrics };
  history.evals.set(epoch, metrics);
  push(history, { series: 'eval', x: epoch, values: metrics, at });
}

function push(history: TrainHistory, point: CurvePoint): void {
  // A resumed task writes some steps again: the later run counts.
  const last = history.points.findLast((known) => known.series === point.series);
  if (last !== undefined && last.x >= point.x) {
    history.points = history.points.filter((known) => known.series !== point.series || known.x < point.x);
  }
  history.points.push(point);
  if (history.points.length > MAX_POINTS) {
    history.points = history.points.filter((known, at) => known.series === 'eval' || at % 2 === 0);
  }
}
