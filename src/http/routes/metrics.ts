/** `/project/task/metrics`: what training, evaluation and pruning analysis have measured. */
import { z } from 'zod';
import type { PruningApi, TasksApi, TrainingApi } from '../../domain/contracts.js';
import { defineRoute, type Route } from '../route.js';
import { tid } from './shapes.js';

export interface MetricsServices {
  readonly tasks: Pick<TasksApi, 'get'>;
  readonly training: TrainingApi;
  readonly pruning: Pick<PruningApi, 'log' | 'sensitivities'>;
}

const values = z.record(z.string(), z.union([z.number(), z.string()])).nullable();
const text = z.string().nullable();
const numbers = z.record(z.string(), z.number().nullable());

export function metricsRoutes({ tasks, training, pruning }: MetricsServices): Route[] {
  return [
    defineRoute({
      method: 'get',
      path: '/project/task/metrics',
      summary: 'Progress of training or pruning analysis, metrics of the best model or of all saved epochs',
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
            pruning: z
              .object({
                flops_before: z.number(),
                flops_after: z.number(),
                pruned_flops: z.number().describe('Share removed'),
                parameters_before: z.number(),
                parameters_after: z.number(),
                tolerance: z.number().describe('Metric loss that each layer was allowed'),
                ratios: z.record(z.string(), z.number()).describe('Share of channels removed, by group of layers'),
              })
              .nullable()
              .describe('Of a pruned model; FLOPs are multiply-accumulates of one image'),
          })
          .optional(),
        eval_metric: numbers.optional(),
        eval_metrics: numbers.optional(),
        key: z.string().nullable().optional(),
        epoch_result_dict: numbers.optional(),
        best_epoch: z.int().optional().describe('-1 when nothing is saved'),
        best_result: z.number().optional(),
        prune_log: z
          .object({
            log_file: z.string(),
            eta: text.describe('H:M:S left'),
            iters: text.describe('Evaluations in all'),
            current: text,
            progress: text.describe('Percent'),
          })
          .nullable()
          .optional(),
        sensitivities_loss_img: z
          .record(z.string(), z.number())
          .optional()
          .describe('Share of the parameters removed when each layer is pruned as far as a metric loss allows'),
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
            return { prune_log: pruning.log(id) };
          case 'sensitivities':
            return { sensitivities_loss_img: pruning.sensitivities(id) };
        }
      },
    }),
  ];
}
