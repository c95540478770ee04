/** `/project/task/evaluate`. */
import { z } from 'zod';
import type { JobsApi } from '../../domain/contracts.js';
import { TaskStatus } from '../../domain/enums.js';
import { defineRoute, type Route } from '../route.js';
import { epochArg, readEpoch, score, tid } from './shapes.js';

export interface EvaluateServices {
  readonly jobs: JobsApi;
}

export function evaluateRoutes({ jobs }: EvaluateServices): Route[] {
  return [
    defineRoute({
      method: 'get',
      path: '/project/task/evaluate',
      summary: 'State and report of the last evaluation',
      tag: 'evaluation',
      input: z.object({ tid }),
      output: z.object({
        evaluate_status: z.int().nullable().describe('11 running, 5 done, 12 failed; null when never started'),
        message: z.string(),
        path: z.string().nullish().describe('The stored report'),
        result: z.record(z.string(), z.unknown()).nullable(),
      }),
      async handle(input) {
        const record = jobs.get(input.tid, 'evaluate');
        if (record === undefined) {
          return { evaluate_status: null, result: null, message: `${input.tid} was never evaluated.` };
        }
        const answer = { evaluate_status: record.status, message: record.message };
        if (record.status === TaskStatus.XEVALUATING) return { ...answer, result: null };
        if (record.status !== TaskStatus.XEVALUATED) return { status: -1 as const, ...answer, result: null };
        const { path, report } = await jobs.report(input.tid);
        if (report !== null) return { ...answer, path, result: report };
        return { status: -1 as const, ...answer, message: 'The stored report is gone. Evaluate again.', result: null };
      },
    }),
    defineRoute({
      method: 'post',
      path: '/project/task/evaluate',
      summary:
        'Reports on the validation set: confusion matrix, precision, recall, F1, AUC and top-k accuracy of classes; boxes and masks by class with average precision; IoU of label maps, where Mean_Acc is the share of right pixels and a class without any counts as IoU 0',
      tag: 'evaluation',
      input: z.object({
        tid,
        epoch: epochArg,
        topk: z.int().min(1).max(1000).nullish().describe('k of top-k accuracy; default 5'),
        score_thresh: score,
        overlap_thresh: z
          .number()
          .min(0)
          .max(1)
          .nullish()
          .describe('IoU of a match; default 0.5, for instance segmentation 0.3'),
      }),
      output: z.object({}),
      async handle({ tid: id, epoch, topk, score_thresh, overlap_thresh }) {
        await jobs.evaluate(id, {
          epoch: readEpoch(epoch),
          topk: topk ?? null,
          score_thresh: score_thresh ?? null,
          overlap_thresh: overlap_thresh ?? null,
        });
        return {};
      },
    }),
  ];
}
