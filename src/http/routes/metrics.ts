/** `/project/task/metrics`: what training, evaluation and pruning analysis have measured. */
import { z } from 'zod';
import type { TasksApi, TrainingApi } from '../../domain/contracts.js';
import { notReady } from '../../domain/errors.js';
import { defineRoute, type Route } from '../route.js';
import { tid } from './shapes.js';

export interface MetricsServices {
  readonly tasks: Pick<TasksApi, 'get'>;
  readonly training: TrainingApi;
}

const values = z.record(z.string(), z.union([z.number(), z.string()])).nullable();
const numbers = z.record(z.string(), z.number().nullable());

export function metricsRoutes({ tasks, training }: MetricsServices): Route[] {
  return [
    defineRoute({
      method: 'get',
      path: '/project/task/metrics',
      summary: 'Progress of training, metrics of the best model or of all saved epochs',
      tag: 'training',
      input: z.object({
        tid,
        type: z
          .enum(['train', 'eval', 'eval_all', 'sensitivities', 'prune'])
          .describe('train: progress; eval: best model; eval_all: every saved epoch; sensitivities, prune: analysis'),
      }),
      output: z.object({
        train_log: z
          .looseObject({
            log_file: z.string(),
            eta: z.int().nullable().describe('Seconds left'),
            train_metrics: values.describe('Epoch, Step, loss … of the last logged step; "nan" for what is not finite'),
            eval_metrics: values.describe('Epoch and metrics of the last evaluation'),
            eval_metircs: values.describe('The same under the name that PaddleX documents'),
            download_status: z
              .union([
                z.enum(['Done', 'Failed']),
                z.object({ speed: z.string(), download: z.number(), total: z.number() }),
              ])
              .nullable(),
            eval_done: z.boolean().describe('A model has been saved'),
            train_error: z.string().nullable(),
            train_stage: z.string().nullable(),
            running_duration: z.string().nullable(),
          })
          .optional(),
        eval_metric: numbers.optional(),
        eval_metrics: numbers.optional(),
        key: z.string().nullable().optional(),
        epoch_result_dict: numbers.optional(),
        best_epoch: z.int().optional().describe('-1 when nothing is saved'),
        best_result: z.number().optional(),
        prune_log: z.null().optional(),
      }),
      async handle({ tid: id, type }) {
        tasks.get(id);
        switch (type) {
          case 'train':
            return { train_log: training.log(id) };
          case 'eval': {
            const metric = await training.bestMetric(id);
            return { eval_metric: metric, eval_metrics: metric };
          }
          case 'eval_all':
            return training.allEpochs(id);
          case 'prune':
            return { prune_log: null };
          case 'sensitivities':
            throw notReady(`${id} has no pruning analysis yet.`, 'The analysis is not available yet in this version.');
        }
      },
    }),
  ];
}
