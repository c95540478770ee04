/** `/project/task/predict`. */
import { z } from 'zod';
import type { JobsApi } from '../../domain/contracts.js';
import { PredictStatus } from '../../domain/enums.js';
import type { SideJobRecord } from '../../domain/records.js';
import { defineRoute, type Route } from '../route.js';
import { epochArg, given, readEpoch, score, tid } from './shapes.js';

export interface PredictServices {
  readonly jobs: JobsApi;
}

const state = z.object({
  predict_status: z.int().nullable().describe('0 running, 1 done, 2 failed or stopped; null when never started'),
  message: z.string(),
  predict_num: z.int().describe('Pictures done'),
  total_num: z.int().describe('Pictures in all'),
  result: z.array(z.unknown()).optional().describe('What was found in each picture, once done'),
});

function answer(record: SideJobRecord | undefined): z.input<typeof state> {
  if (record === undefined) return { predict_status: null, message: 'Never started.', predict_num: 0, total_num: 0 };
  return {
    predict_status: record.status,
    message: record.message,
    predict_num: record.done,
    total_num: record.total,
    ...(record.status === PredictStatus.XPREDONE && Array.isArray(record.result) ? { result: record.result } : {}),
  };
}

export function predictRoutes({ jobs }: PredictServices): Route[] {
  return [
    defineRoute({
      method: 'get',
      path: '/project/task/predict',
      summary: 'State of the last prediction',
      tag: 'prediction',
      input: z.object({ tid }),
      output: state,
      handle: async (input) => answer(jobs.get(input.tid, 'predict')),
    }),
    defineRoute({
      method: 'post',
      path: '/project/task/predict',
      summary: 'Predicts a picture, a list of files or the test split, and draws the results',
      tag: 'prediction',
      input: z.object({
        tid,
        image_data: z.string().min(1).nullish().describe('One picture, base64'),
        img_list: z
          .union([z.array(z.string().min(1)), z.string()])
          .nullish()
          .describe('Files on the server; empty or left out: the test split'),
        score_thresh: score.describe('Lowest score that is drawn; for detection'),
        epoch: epochArg,
        save_dir: z.unknown().optional().describe("Ignored: results go to the task's visualized_test_results"),
      }),
      output: z.object({
        path: z.string().nullable().optional().describe('Picture that the result of a single image_data goes to'),
      }),
      async handle(input, ctx) {
        const list = typeof input.img_list === 'string' ? readList(input.img_list) : input.img_list;
        const { path } = await jobs.predict(input.tid, {
          ...given({ image_data: input.image_data, img_list: list, score_thresh: input.score_thresh }),
          epoch: readEpoch(input.epoch),
        });
        return ctx.given.has('img_list') && input.image_data == null ? {} : { path };
      },
    }),
    defineRoute({
      method: 'put',
      path: '/project/task/predict',
      summary: 'Stops a prediction',
      tag: 'prediction',
      input: z.object({ tid, act: z.unknown().optional() }),
      output: state,
      async handle(input) {
        await jobs.stop(input.tid, 'predict');
        return answer(jobs.get(input.tid, 'predict'));
      },
    }),
  ];
}

/** A list as JSON text, or one path. */
function readList(text: string): string[] {
  const trimmed = text.trim();
  if (trimmed === '') return [];
  if (!trimmed.startsWith('[')) return [trimmed];
  try {
    const list: unknown = JSON.parse(trimmed);
    if (Array.isArray(list) && list.every((entry) => typeof entry === 'string')) return list;
  } catch {}
  return [trimmed];
}
