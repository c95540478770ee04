/** An exported model in ONNX Runtime's own format, which its small builds for phones read. */
import { copyFile, mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { syncFolder, temporaryName, writeFileAtomic } from '../../domain/atomic-file.js';
import type { LiteResult, LiteSpec } from '../jobs.gen.js';
import { withEntries } from './description.js';
import { difference, ExportedModel, latencies, RUNTIME, rankedDifference, threadsOf } from './session.js';

export const FOLDER = 'lite_model';
/** Images that the converted model is compared on. */
const IMAGES = 2;
/** Probabilities of the same kernels in another order of sums. */
const TOLERANCE = 1e-3;

/** The same normalised noise at each call. */
function noise(length: number): Float32Array {
  let state = 1;
  return Float32Array.from({ length }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return (state / 2 ** 32 - 0.5) * 4;
  });
}

/**
 * Has the runtime save `model` with the optimizations that hold on any processor: layouts that fit only this one
 * (level `all`) would not run elsewhere.
 */
async function save(model: string, path: string, threads: number): Promise<void> {
  const session = await ExportedModel.open(model, threads, {
    graphOptimizationLevel: 'extended',
    optimizedModelFilePath: path,
  });
  await session.release();
  if (!((await stat(path).catch(() => undefined))?.size ?? 0)) throw new Error('the runtime wrote no file');
}

/** Saves as `model.ort`, or where the runtime cannot, as optimized `model.onnx` with the reason. */
async function saveBest(model: string, folder: string, threads: number) {
  try {
    await save(model, join(folder, 'model.ort'), threads);
    return { file: 'model.ort', format: 'ort', note: null };
  } catch (error) {
    await rm(join(folder, 'model.ort'), { force: true });
    await save(model, join(folder, 'model.onnx'), threads);
    const note = `ONNX Runtime could not write its own format (${(error as Error).message}); this is optimized ONNX.`;
    return { file: 'model.onnx', format: 'onnx', note };
  }
}

/** Moves a whole folder to `target`; an older conversion there is removed, anything else refused. */
async function replace(temporary: string, target: string): Promise<void> {
  const names = await readdir(target).catch(() => undefined);
  if (names !== undefined && names.length > 0 && !names.includes('model.yml'))
    throw new Error(`'${target}' holds other files; choose another folder`);
  const old = temporaryName(target);
  if (names !== undefined) await rename(target, old);
  try {
    await rename(temporary, target);
  } catch (error) {
    if (names !== undefined) await rename(old, target);
    throw error;
  }
  await syncFolder(join(target, '..'));
  await rm(old, { recursive: true, force: true });
}

/** Largest difference of two models' scores for some images. */
async function gap(a: ExportedModel, b: ExportedModel, images: Float32Array): Promise<number> {
  if (!a.detects) return difference(await a.scores(images, IMAGES), await b.scores(images, IMAGES));
  let largest = 0;
  for (let at = 0; at < IMAGES; at++) {
    const image = images.subarray((at * images.length) / IMAGES, ((at + 1) * images.length) / IMAGES);
    const [ours, theirs] = [await a.detections(image), await b.detections(image)];
    largest = Math.max(largest, rankedDifference(ours.scores, theirs.scores));
  }
  return largest;
}

/** Converts, runs the result beside its source, and describes it. Nothing of an earlier conversion is lost on failure. */
export async function convert({ model: source, save_dir, threads }: LiteSpec): Promise<LiteResult> {
  const model = join(source, 'model.onnx');
  const target = join(save_dir, FOLDER);
  await mkdir(save_dir, { recursive: true });
  const temporary = temporaryName(target);
  await mkdir(temporary);
  try {
    const { file, format, note } = await saveBest(model, temporary, threads);
    const [before, after] = [
      await ExportedModel.open(model, threads),
      await ExportedModel.open(join(temporary, file), threads),
    ];
    const one = after.imageShape.reduce((product, size) => product * size, 1);
    const images = noise(IMAGES * one);
    const apart = await gap(before, after, images);
    if (!(apart <= TOLERANCE))
      throw new Error(`the converted model gives other results: probabilities differ by ${apart}`);
    const [latency = 0] = await latencies([after], images.subarray(0, one));
    const { size: bytes } = await stat(join(temporary, file));
    const measured = {
      runtime: RUNTIME,
      threads: threadsOf(threads),
      bytes,
      latency_ms: latency,
      difference_to_source: apart,
    };
    const yml = withEntries(await readFile(join(source, 'model.yml'), 'utf8'), {
      Format: format,
      ...(note === null ? {} : { Note: note }),
      Converted: measured,
    });
    await writeFileAtomic(join(temporary, 'model.yml'), yml);
    await copyFile(join(source, 'labels.txt'), join(temporary, 'labels.txt')).catch(() => {});
    await writeFile(join(temporary, '.success'), '');
    await replace(temporary, target);
    return {
      path: target,
      format,
      note,
      runtime: RUNTIME,
      difference: apart,
      bytes,
      latency_ms: latency,
    };
  } catch (error) {
    await rm(temporary, { recursive: true, force: true });
    throw error;
  }
}
