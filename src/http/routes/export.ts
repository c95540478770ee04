/** `/project/task/export`. */
import { z } from 'zod';
import type { ExportResult } from '../../compute/jobs.gen.js';
import type { JobsApi, TasksApi } from '../../domain/contracts.js';
import { TaskStatus } from '../../domain/enums.js';
import { invalidArgument } from '../../domain/errors.js';
import { QUANT_IMAGES, QUANT_METHODS, quantLog, quantResult } from '../../domain/export-plan.js';
import type { SideJobRecord } from '../../domain/records.js';
import { defineRoute, type Route } from '../route.js';
import { epochArg, given, measured, metrics, readEpoch, tid } from './shapes.js';

export interface ExportServices {
  readonly jobs: JobsApi;
  readonly tasks: Pick<TasksApi, 'get'>;
}

const state = z.object({
  export_status: z.int().nullable().optional().describe('6 running, 7 done, 13 failed or stopped; null: never started'),
  message: z.string().optional(),
  measured: measured.optional().describe('What ONNX Runtime measured of the last export'),
  quant_log: z
    .object({
      log_file: z.string().nullable(),
      stage: z.string().nullable().describe('Batch, Weight, Activation or Finish'),
      running_duration: z.number().nullable().describe('Fraction that is done, 0 to 1'),
    })
    .optional(),
  quant_result: z
    .object({ before: metrics.optional(), after: metrics.optional() })
    .optional()
    .describe('Accuracy on the validation images in fp32 and in int8; empty when there is none'),
});

function answer(record: SideJobRecord | undefined): z.input<typeof state> & { status?: -1 } {
  if (record === undefined) return { export_status: null, message: 'Never exported.' };
  const { status, message } = record;
  const figures = measuredOf(record);
  return {
    ...(status === TaskStatus.XEXPORTFAIL ? { status: -1 } : {}),
    export_status: status,
    message,
    ...(figures === undefined ? {} : { measured: figures }),
  };
}

const measuredOf = (record: SideJobRecord | undefined) => (record?.result as ExportResult | null | undefined)?.measured;

export function exportRoutes({ jobs, tasks }: ExportServices): Route[] {
  return [
    defineRoute({
      method: 'get',
      path: '/project/task/export',
      summary: 'State of the last export',
      tag: 'export',
      input: z.object({
        tid,
        quant: z.enum(['log', 'result']).nullish().describe('Progress or result of a quantized export'),
      }),
      output: state,
      async handle(input) {
        const record = jobs.get(input.tid, 'export');
        if (input.quant === 'log') return { quant_log: quantLog(tasks.get(input.tid), record) };
        if (input.quant === 'result') return { quant_result: quantResult(measuredOf(record)) };
        return answer(record);
      },
    }),
    defineRoute({
      method: 'post',
      path: '/project/task/export',
      summary:
        'Exports a model for inference (ONNX, description and labels in <save_dir>/inference_model), or converts an exported one',
      tag: 'export',
      input: z.object({
        tid,
        type: z
          .enum(['infer', 'inference', 'lite'])
          .describe(
            "infer (or inference), which answers at once; or lite: model_path in ONNX Runtime's own format in <save_dir>/lite_model, which answers when it is done",
          ),
        save_dir: z.string().min(1).nullish().describe('Folder on the server, inside the workspace or a data root'),
        epoch: epochArg,
        quant: z.boolean().nullish().describe('infer: int8 instead of fp32, calibrated with training images'),
        quant_method: z
          .enum(QUANT_METHODS)
          .nullish()
          .describe('How ranges of activations are chosen; default percentile'),
        quant_images: z.int().nullish().describe(`Training images to calibrate with; default ${QUANT_IMAGES}`),
        model_path: z.string().nullish().describe('For lite: folder of an exported model, quantized or not'),
      }),
      output: z.object({ save_dir: z.string().optional(), message: z.string().optional() }),
      async handle(input) {
        jobs.get(input.tid, 'export'); // an unknown task is the first thing to tell
        const { save_dir, model_path, quant_method, quant_images } = input;
        if (save_dir == null) throw invalidArgument('save_dir', 'save_dir is missing; it must be a folder.');
        if (input.type === 'lite') {
          if (model_path == null || model_path === '')
            throw invalidArgument('model_path', 'model_path is missing; it must be the folder of an exported model.');
          return jobs.lite(input.tid, { save_dir, model_path });
        }
        return jobs.export(input.tid, {
          save_dir,
          epoch: readEpoch(input.epoch),
          quant: input.quant === true,
          ...given({ quant_method, quant_images }),
        });
      },
    }),
    defineRoute({
      method: 'put',
      path: '/project/task/export',
      summary: 'Stops an export',
      tag: 'export',
      input: z.object({ tid, act: z.unknown().optional() }),
      output: state,
      async handle(input) {
        await jobs.stop(input.tid, 'export');
        const { status: _, ...rest } = answer(jobs.get(input.tid, 'export'));
        return rest;
      },
    }),
  ];
}
