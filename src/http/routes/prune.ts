/** `/project/task/prune`: the pruning analysis. */
import { z } from 'zod';
import type { JobsApi, PruningApi } from '../../domain/contracts.js';
import { defineRoute, type Route } from '../route.js';
import { tid } from './shapes.js';

export interface PruneServices {
  readonly jobs: Pick<JobsApi, 'get' | 'stop'>;
  readonly pruning: Pick<PruningApi, 'analyse'>;
}

export function pruneRoutes({ jobs, pruning }: PruneServices): Route[] {
  return [
    defineRoute({
      method: 'get',
      path: '/project/task/prune',
      summary: 'State of the pruning analysis; null when never started',
      tag: 'training',
      input: z.object({ tid }),
      output: z.object({
        prune_status: z.int().nullable().describe('1 running, 2 done, 3 failed, 4 stopped; null when never started'),
        message: z.string(),
      }),
      async handle(input) {
        const record = jobs.get(input.tid, 'prune');
        return { prune_status: record?.status ?? null, message: record?.message ?? 'Not analysed for pruning.' };
      },
    }),
    defineRoute({
      method: 'post',
      path: '/project/task/prune',
      summary: 'Measures on the validation set what pruning each layer of the best model costs',
      tag: 'training',
      input: z.object({ tid }),
      output: z.object({}),
      async handle(input) {
        await pruning.analyse(input.tid);
        return {};
      },
    }),
    defineRoute({
      method: 'put',
      path: '/project/task/prune',
      summary: 'Stops the pruning analysis; a new start goes on from the layers that are measured',
      tag: 'training',
      input: z.object({ tid, act: z.enum(['stop']) }),
      output: z.object({}),
      async handle(input) {
        await jobs.stop(input.tid, 'prune');
        return {};
      },
    }),
  ];
}
