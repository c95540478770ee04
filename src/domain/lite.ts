/** Conversion of an exported model to ONNX Runtime's own format, which small builds for phones read. */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { JobOutcome } from '../compute/jobs.gen.js';
import { type DomainContext, explain, submitted } from './context.js';
import type { LiteArgs } from './contracts.js';
import { conflict, invalidArgument, notReady, OarlockError, unsupported } from './errors.js';
import { exportFolder, sweepUnfinished } from './export-folder.js';
import { isInside } from './paths.js';
import type { TaskRecord } from './records.js';

const isFile = async (path: string): Promise<boolean> => (await stat(path).catch(() => undefined))?.isFile() === true;

/** The folder of the ONNX file: the one given, or its `inference_model`. */
async function exportedFolder({ paths }: DomainContext, given: string): Promise<string> {
  const folder = await paths.resolveFolder(given, { field: 'model_path' });
  for (const candidate of [folder, join(folder, 'inference_model')]) {
    const whole = (await isFile(join(candidate, 'model.onnx'))) && (await isFile(join(candidate, 'model.yml')));
    // Again through the guard: what lies in a folder may be a link to somewhere else.
    if (whole) return paths.resolveFolder(candidate, { field: 'model_path' });
    if (await isFile(join(candidate, 'model.ort')))
      throw invalidArgument('model_path', `${given} holds a lite model already; model_path must be an exported model.`);
    if (await isFile(join(candidate, 'model.pdmodel'))) {
      throw unsupported(
        `${given} holds a model of Paddle Inference, which cannot be converted.`,
        'Export the task again with type infer.',
      );
    }
  }
  throw notReady(
    `${given} holds no exported model (model.onnx with model.yml).`,
    'Export the task with type infer first.',
  );
}

/** Converts and says what came out. Nothing is removed on failure but what the conversion itself had begun. */
export async function convert(context: DomainContext, task: TaskRecord, args: LiteArgs): Promise<{ message: string }> {
  const model = await exportedFolder(context, args.model_path);
  const saveDir = await exportFolder(context, task, args.save_dir);
  if (isInside(saveDir, model))
    throw invalidArgument('save_dir', 'save_dir lies inside the exported model itself; choose another folder.');
  const { compute, config } = context;
  const id = `${task.id}/lite`;
  if (compute.find(id) !== undefined)
    throw conflict('lite running', `A conversion of ${task.id} is running already.`, 'Wait for its end.');
  const spec = { kind: 'lite', model, save_dir: saveDir, threads: config.threads } as const;
  const outcome = await submitted(compute, { id, lane: 'interactive', devices: [], spec }).outcome;
  if (outcome.type !== 'lite') {
    await sweepUnfinished(saveDir, 'lite_model');
    throw failure(outcome);
  }
  const { path, format, note, bytes } = outcome;
  const file = format === 'ort' ? 'model.ort' : 'model.onnx';
  const message = `The model is converted: ${join(path, file)}, ${(bytes / 1e6).toFixed(1)} MB.`;
  return { message: note === null ? message : `${message} ${note}` };
}

function failure(outcome: JobOutcome): OarlockError {
  if (outcome.type !== 'failed') return new OarlockError('internal', 'The conversion ended without a result.');
  if (outcome.code === 'invalid_data') return invalidArgument('model_path', explain(outcome));
  const code =
    outcome.code === 'cancelled' ? 'conflict' : outcome.code === 'resource_exhausted' ? outcome.code : 'internal';
  return new OarlockError(code, explain(outcome), { retryable: outcome.retryable });
}
