/** `/project/task/export`. */
import { z } from 'zod';
import type { JobsApi } from '../../domain/contracts.js';
import { TaskStatus } from '../../domain/enums.js';
import { invalidArgument, unsupported } from '../../domain/errors.js';
import type { SideJobRecord } from '../../domain/records.js';
import { defineRoute, type Route } from '../route.js';
import { epochArg, readEpoch, tid } from './shapes.js';

export interface ExportServices {
  readonly jobs: JobsApi;
}

const state = z.object({
  export_status: z.int().nullable().optional().describe('6 running, 7 done, 13 failed or stopped; null: never started'),
  message: z.string().optional(),
  quant_log: z
    .object({ log_file: z.string().nullable(), stage: z.string().nullable(), running_duration: z.number().nullable() })
    .optional(),
  quant_result: z.record(z.string(), z.unknown()).optional(),
});

function answer(record: SideJobRecord | undefined): z.input<typeof state> & { status?: -1 } {
  if (record === undefined) return { export_status: null, message: 'Never exported.' };
  const { status, message } = record;
  return { ...(status === TaskStatus.XEXPORTFAIL ? { status: -1 } : {}), export_status: status, message };
}

export function exportRoutes({ jobs }: ExportServices): Route[] {
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
        if (input.quant === 'log') return { quant_log: { log_file: null, stage: null, running_duration: null } };
        if (input.quant === 'result') return { quant_result: {} };
        return answer(record);
      },
    }),
    defineRoute({
      method: 'post',
      path: '/project/task/export',
      summary: 'Exports a model for inference: ONNX, description and labels in <save_dir>/inference_model',
      tag: 'export',
      input: z.object({
        tid,
        type: z.enum(['infer', 'inference', 'lite']).describe('infer (or inference); lite is not available yet'),
        save_dir: z.string().min(1).nullish().describe('Folder on the server, inside the workspace or a data root'),
        epoch: epochArg,
        quant: z.boolean().nullish().describe('Quantize; not available yet'),
        model_path: z.string().nullish().describe('For lite: folder of an exported model'),
      }),
      output: z.object({ save_dir: z.string() }),
      async handle(input) {
        jobs.get(input.tid, 'export'); // an unknown task is the first thing to tell
        if (input.type === 'lite') throw unsupported('Export to Paddle Lite is not available yet.', 'Use type infer.');
        if (input.save_dir == null) throw invalidArgument('save_dir', 'save_dir is missing; it must be a folder.');
        return jobs.export(input.tid, {
          save_dir: input.save_dir,
          epoch: readEpoch(input.epoch),
          quant: input.quant === true,
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
