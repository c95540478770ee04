/** What an exported model is worth: accuracy on the validation images, size, latency, and whether it computes what the engine does. */
import { readFile, stat } from 'node:fs/promises';
import { createRequire } from 'node:module';
import type { Measured, MeasureSpec, ModelMeasure } from '../jobs.gen.js';
import type { OnProgress } from './protocol.js';
import { difference, ExportedModel, latencies, RUNTIME, rankedDifference, threadsOf } from './session.js';

/** Pixels of one batch: sixteen images of 224 × 224. */
const BATCH_PIXELS = 16 * 224 * 224;
const MAX_BATCH = 64;

/** The light addon's reader of validation images. */
interface ValidationBatches {
  readonly batches: number;
  /** `count` images of crop·crop·3 bytes, RGB; null after the last. */
  next(): { pixels: Uint8Array; labels: number[]; count: number } | null;
}
type ImageReader = new (
  root: string,
  resizeShort: number,
  crop: number,
  batchSize: number,
  threads: number,
) => ValidationBatches;

/** The light addon's reader of validation pictures with label maps, which it compares with the answers of `models` models. */
interface LabelMapBatches {
  readonly batches: number;
  readonly images: number;
  /** `count` pictures, normalised; null after the last. */
  next(): { input: Float32Array; count: number } | null;
  /** Class ids of the last batch: bytes of int64. */
  count(model: number, ids: Uint8Array): void;
  miou(model: number): number;
}
type MapReader = new (spec: string, batchSize: number, models: number) => LabelMapBatches;

/** The light addon's reader of validation pictures with objects, which it compares with what `models` models find. */
interface BoxPictures {
  readonly pictures: number;
  readonly images: number;
  /** A picture, normalised, and its sizes; null after the last. */
  next(): { input: Float32Array; size: Float32Array } | null;
  count(
    model: number,
    boxes: Float32Array,
    scores: Float32Array,
    labels: BigInt64Array,
    masks: Float32Array | undefined,
  ): void;
  /** JSON. */
  metrics(model: number): string;
}
type BoxReader = new (spec: string, models: number) => BoxPictures;

interface Addon {
  readonly ValidationBatches: ImageReader;
  readonly LabelMapBatches: MapReader;
  readonly BoxPictures: BoxReader;
}

type ClassesSpec = MeasureSpec & { task: { kind: 'classes' } };

/** What the models are worth on the validation images. */
interface Accuracies {
  readonly images: number;
  readonly metrics: ModelMeasure['metrics'][];
}

const open = (addon: string): Addon => createRequire(import.meta.url)(addon) as Addon;
const pixelsOf = ({ size: [height, width] }: Pick<MeasureSpec, 'size'>): number => height * width;
const batchSize = (spec: MeasureSpec): number =>
  Math.min(MAX_BATCH, Math.max(1, Math.floor(BATCH_PIXELS / pixelsOf(spec))));

/** Rows whose label is among the `k` best scores; of equal scores the lower class is the better one. */
export class TopK {
  hits = 0;
  rows = 0;
  #finite = true;

  constructor(
    readonly k: number,
    readonly classes: number,
  ) {}

  count(scores: Float32Array, labels: readonly number[]): void {
    for (const [row, label] of labels.entries()) {
      const from = row * this.classes;
      const own = scores[from + label] as number;
      let better = 0;
      for (let at = 0; at < this.classes; at++) {
        const other = scores[from + at] as number;
        if (other > own || (other === own && at < label)) better++;
        if (!Number.isFinite(other)) this.#finite = false;
      }
      if (better < this.k) this.hits++;
    }
    this.rows += labels.length;
  }

  /** Share of hits; null when there were no rows, or scores that are no numbers. */
  get share(): number | null {
    return this.#finite && this.rows > 0 ? this.hits / this.rows : null;
  }
}

/** Bytes of `count` images in rows of RGB as normalised planes. */
export function normalized(
  pixels: Uint8Array,
  count: number,
  { size, mean, std }: Pick<MeasureSpec, 'size' | 'mean' | 'std'>,
): Float32Array {
  const plane = pixelsOf({ size });
  const out = new Float32Array(count * 3 * plane);
  for (let c = 0; c < 3; c++) {
    const table = Float32Array.from({ length: 256 }, (_, v) => (v / 255 - (mean[c] as number)) / (std[c] as number));
    for (let image = 0; image < count; image++) {
      const from = image * 3 * plane + c;
      const to = (image * 3 + c) * plane;
      for (let at = 0; at < plane; at++) out[to + at] = table[pixels[from + 3 * at] as number] as number;
    }
  }
  return out;
}

async function ofClasses(
  spec: ClassesSpec & { dataset: string },
  addon: string,
  models: readonly ExportedModel[],
  onProgress: OnProgress,
): Promise<Accuracies> {
  const { ValidationBatches } = open(addon);
  const { classes, threads } = spec;
  const { topk, resize_short } = spec.task;
  const reader = new ValidationBatches(spec.dataset, resize_short, spec.size[0], batchSize(spec), threads);
  const ks = topk > 1 ? [1, topk] : [1];
  const counters = models.map(() => ks.map((k) => new TopK(k, classes)));
  for (let done = 1, batch = reader.next(); batch !== null; batch = reader.next(), done++) {
    const { pixels, labels, count } = batch;
    const images = normalized(pixels, count, spec);
    for (const [at, model] of models.entries()) {
      const scores = await model.scores(images, count);
      for (const counter of counters[at] ?? []) counter.count(scores, labels);
    }
    onProgress(done, reader.batches);
  }
  const metrics = counters.map((list) => Object.fromEntries(list.map((one) => [`acc${one.k}`, one.share])));
  return { images: counters[0]?.[0]?.rows ?? 0, metrics };
}

async function ofPixels(
  spec: MeasureSpec,
  addon: string,
  models: readonly ExportedModel[],
  onProgress: OnProgress,
): Promise<Accuracies> {
  const { LabelMapBatches } = open(addon);
  const reader = new LabelMapBatches(JSON.stringify(spec), batchSize(spec), models.length);
  for (let done = 1, batch = reader.next(); batch !== null; batch = reader.next(), done++) {
    for (const [at, model] of models.entries()) {
      const { buffer, byteOffset, byteLength } = await model.labelMaps(batch.input, batch.count);
      reader.count(at, new Uint8Array(buffer, byteOffset, byteLength));
    }
    onProgress(done, reader.batches);
  }
  return { images: reader.images, metrics: models.map((_, at) => ({ miou: reader.miou(at) })) };
}

async function ofBoxes(
  spec: MeasureSpec,
  addon: string,
  models: readonly ExportedModel[],
  onProgress: OnProgress,
): Promise<Accuracies> {
  const { BoxPictures } = open(addon);
  const reader = new BoxPictures(JSON.stringify(spec), models.length);
  for (let done = 1, picture = reader.next(); picture !== null; picture = reader.next(), done++) {
    for (const [at, model] of models.entries()) {
      const { boxes, scores, labels, masks } = await model.detections(picture.input, picture.size);
      reader.count(at, boxes, scores, labels, masks);
    }
    onProgress(done, reader.pictures);
  }
  const metrics = models.map((_, at) => JSON.parse(reader.metrics(at)) as ModelMeasure['metrics']);
  return { images: reader.images, metrics };
}

function accuracies(
  spec: MeasureSpec & { dataset: string },
  addon: string,
  models: readonly ExportedModel[],
  onProgress: OnProgress,
): Promise<Accuracies> {
  const { task } = spec;
  if (task.kind === 'classes') return ofClasses({ ...spec, task }, addon, models, onProgress);
  return task.kind === 'pixels' ? ofPixels(spec, addon, models, onProgress) : ofBoxes(spec, addon, models, onProgress);
}

/** The probe's images and the engine's scores. */
async function readProbe(spec: MeasureSpec): Promise<{ images: Float32Array; scores: Float32Array }> {
  const { probe, mean } = spec;
  const bytes = await readFile(probe.path);
  const values = new Float32Array(new Uint8Array(bytes).buffer);
  const split = probe.images * mean.length * pixelsOf(spec);
  return { images: values.subarray(0, split), scores: values.subarray(split) };
}

/** Largest difference of a model's scores and the engine's for the probe's images. */
async function probed(
  model: ExportedModel,
  count: number,
  images: Float32Array,
  scores: Float32Array,
): Promise<number> {
  if (!model.detects) return difference(await model.scores(images, count), scores);
  let largest = 0;
  for (let image = 0, at = 0; image < count; image++) {
    const one = images.subarray((image * images.length) / count, ((image + 1) * images.length) / count);
    const found = scores[at + 4] ?? 0;
    const { scores: theirs } = await model.detections(one, scores.slice(at, at + 4));
    const ours = scores.subarray(at + 5, at + 5 + found);
    largest = Math.max(largest, rankedDifference(theirs, ours));
    at += 5 + found;
  }
  return largest;
}

/** Runs the exported model, and its fp32 form if it is quantized. `addon` is the path of the light addon. */
export async function measure(spec: MeasureSpec, addon: string, onProgress: OnProgress): Promise<Measured> {
  const paths = spec.fp32 === null ? [spec.model] : [spec.model, spec.fp32];
  const models: ExportedModel[] = [];
  for (const path of paths) models.push(await ExportedModel.open(path, spec.threads));
  const { images, scores } = await readProbe(spec);
  const plain = models.at(-1) as ExportedModel;
  const apart = await probed(plain, spec.probe.images, images, scores);
  const times = await latencies(models, images.subarray(0, spec.mean.length * pixelsOf(spec)));
  const { dataset } = spec;
  const measured = dataset === null ? undefined : await accuracies({ ...spec, dataset }, addon, models, onProgress);
  const figures = await Promise.all(
    paths.map(async (path, at): Promise<ModelMeasure> => {
      const { size } = await stat(path);
      return { metrics: measured?.metrics[at] ?? {}, bytes: size, latency_ms: times[at] ?? 0 };
    }),
  );
  return {
    runtime: RUNTIME,
    threads: threadsOf(spec.threads),
    images: measured?.images ?? 0,
    model: figures[0] as ModelMeasure,
    fp32: figures[1] ?? null,
    difference: apart,
  };
}
