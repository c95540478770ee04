/** `/project/task/train`: start, stop, resume. */
import { z } from 'zod';
import type { TrainingApi } from '../../domain/contracts.js';
import { defineRoute, type Route } from '../route.js';
import { epochArg, given, readEpoch, tid } from './shapes.js';

export interface TrainServices {
  readonly training: TrainingApi;
}

export function trainRoutes({ training }: TrainServices): Route[] {
  return [
    defineRoute({
      method: 'post',
      path: '/project/task/train',
      summary: 'Starts training from the first epoch; ask GET /project/task/metrics for its progress',
      tag: 'training',
      input: z.object({
        tid,
        eval_metric_loss: z
          .number()
          .min(0)
          .nullish()
          .describe('For a pruning task: relative metric loss each layer may cause; default 0.05'),
        pruned_flops: z
          .number()
          .gt(0)
          .lt(1)
          .nullish()
          .describe('For a pruning task: share of the FLOPs to remove; wins over the other'),
      }),
      output: z.object({}),
      async handle({ tid: id, eval_metric_loss, pruned_flops }) {
        await training.start(id, given({ eval_metric_loss, pruned_flops }));
        return {};
      },
    }),
    defineRoute({
      method: 'put',
      path: '/project/task/train',
      summary: 'Stops training at a checkpoint, or resumes it',
      tag: 'training',
      input: z.object({
        tid,
        act: z.enum(['stop', 'resume']).describe('stop or resume'),
        epoch: epochArg.describe('For resume: a saved epoch; left out: the highest, or a state in mid-epoch beyond it'),
      }),
      output: z.object({}),
      async handle({ tid: id, act, epoch }) {
        if (act === 'stop') await training.stop(id);
        else await training.resume(id, readEpoch(epoch) ?? undefined);
        return {};
      },
    }),
  ];
}
