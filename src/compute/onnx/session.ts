/**
 * ONNX Runtime on exported networks: an input (N×C×H×W, normalised fp32); of a classifier one output (N×classes), of a
 * segmenter two: `score_map` (N×classes×H×W) and `label_map` (N×H×W, int64). A detector takes one image and beside it `size`
 * (height and width of the picture, then of its image in the input), and gives `boxes`, `scores`, `labels` and maybe `masks`.
 */
import { createRequire } from 'node:module';
import { performance } from 'node:perf_hooks';
import * as ort from 'onnxruntime-node';
import { usableCores } from '../machine.js';

/** Latency is the median of at most so many runs … */
const RUNS = 30;
/** … within about this time a model, after as many runs without watch. */
const LATENCY_MS = 1_500;
const WARM_UP = 3;

const { version } = createRequire(import.meta.url)('onnxruntime-node/package.json') as { version: string };
export const RUNTIME = `onnxruntime ${version}`;

/** 0 means all cores. */
export const threadsOf = (wanted: number): number => (wanted > 0 ? wanted : usableCores());

/** A detection less sure may be above a model's threshold in one runtime and below it in another. */
const UNSURE = 0.05;

/** What a detector finds in an image, the surest first. */
export interface Detections {
  /** M×4: left, top, right, bottom. */
  readonly boxes: Float32Array;
  readonly scores: Float32Array;
  readonly labels: BigInt64Array;
  /** M×s×s. */
  readonly masks: Float32Array | undefined;
}

export class ExportedModel {
  private constructor(readonly session: ort.InferenceSession) {}

  static async open(
    path: string,
    threads: number,
    options: ort.InferenceSession.SessionOptions = {},
  ): Promise<ExportedModel> {
    const session = await ort.InferenceSession.create(path, {
      intraOpNumThreads: threadsOf(threads),
      interOpNumThreads: 1,
      // Warnings go to err.log, which people read when something failed.
      logSeverityLevel: 3,
      ...options,
    });
    return new ExportedModel(session);
  }

  /** Sizes of one image, `[C, H, W]`. Throws when the model takes no images of a fixed size. */
  get imageShape(): [number, number, number] {
    const [input] = this.session.inputMetadata;
    const sizes = input?.isTensor ? input.shape.slice(1) : [];
    if (sizes.length !== 3 || sizes.some((size) => typeof size !== 'number' || size < 1))
      throw new Error('the model takes no images of a fixed size');
    return sizes as [number, number, number];
  }

  /** Whether it finds things in one image, of which it wants to know the size. */
  get detects(): boolean {
    return this.session.inputNames.includes('size');
  }

  #image(images: Float32Array, count: number): Record<string, ort.Tensor> {
    const [input] = this.session.inputNames;
    if (input === undefined) throw new Error('the model has no input');
    return { [input]: new ort.Tensor('float32', images, [count, ...this.imageShape]) };
  }

  async #run(images: Float32Array, count: number, output: string | undefined): Promise<ort.Tensor['data']> {
    if (output === undefined) throw new Error('the model has no output');
    const result = (await this.session.run(this.#image(images, count), [output]))[output];
    if (result === undefined) throw new Error(`the model gives no ${output}`);
    return result.data;
  }

  /** Of a detector: what is in an image; without `size` one that fills the input. */
  async detections(image: Float32Array, size?: Float32Array): Promise<Detections> {
    const [, height, width] = this.imageShape;
    const sizes = size ?? Float32Array.of(height, width, height, width);
    const feeds = { ...this.#image(image, 1), size: new ort.Tensor('float32', sizes, [4]) };
    const { boxes, scores, labels, masks } = await this.session.run(feeds);
    const [b, s, l, m] = [boxes?.data, scores?.data, labels?.data, masks?.data];
    if (!(b instanceof Float32Array && s instanceof Float32Array && l instanceof BigInt64Array))
      throw new Error('the model does not give boxes, scores and labels');
    return { boxes: b, scores: s, labels: l, masks: m instanceof Float32Array ? m : undefined };
  }

  /** Runs it on one image, for the time that it takes. */
  async once(image: Float32Array): Promise<void> {
    await (this.detects ? this.detections(image) : this.scores(image, 1));
  }

  /** Scores of `count` images, row by row; of a segmenter its score maps. */
  async scores(images: Float32Array, count: number): Promise<Float32Array> {
    const { outputNames } = this.session;
    const scores = await this.#run(images, count, outputNames.find((name) => name === 'score_map') ?? outputNames[0]);
    if (!(scores instanceof Float32Array)) throw new Error('the model does not give fp32 scores');
    return scores;
  }

  /** Class ids of all pixels of `count` images. */
  async labelMaps(images: Float32Array, count: number): Promise<BigInt64Array> {
    const ids = await this.#run(images, count, 'label_map');
    if (!(ids instanceof BigInt64Array)) throw new Error('the model does not give int64 class ids');
    return ids;
  }

  release(): Promise<void> {
    return this.session.release();
  }
}

/** Median milliseconds of each model for one image; they take turns, so that a busy machine slows all of them. */
export async function latencies(models: readonly ExportedModel[], image: Float32Array): Promise<number[]> {
  const times = models.map((): number[] => []);
  const until = performance.now() + LATENCY_MS * models.length;
  for (let run = 0; run < WARM_UP + RUNS && (run <= WARM_UP || performance.now() < until); run++) {
    for (const [at, model] of models.entries()) {
      const begin = performance.now();
      await model.once(image);
      if (run >= WARM_UP) times[at]?.push(performance.now() - begin);
    }
  }
  return times.map((list) => {
    list.sort((a, b) => a - b);
    return Number((list[list.length >> 1] ?? 0).toFixed(3));
  });
}

/** Largest difference of two lists of scores; NaN anywhere gives infinity. */
export function difference(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) return Number.POSITIVE_INFINITY;
  let largest = 0;
  for (let at = 0; at < a.length; at++) {
    const gap = Math.abs((a[at] as number) - (b[at] as number));
    if (!(gap <= largest)) largest = Number.isNaN(gap) ? Number.POSITIVE_INFINITY : gap;
  }
  return largest;
}

/**
 * Largest difference of the scores of detections by rank; one that only one of the lists has counts with what it is above
 * the scores that may be cut off.
 */
export function rankedDifference(a: Float32Array, b: Float32Array): number {
  const both = Math.min(a.length, b.length);
  const rest = [...a.subarray(both), ...b.subarray(both)].map((score) => Math.max(0, score - UNSURE));
  return Math.max(difference(a.subarray(0, both), b.subarray(0, both)), ...rest.slice(0, 1));
}
