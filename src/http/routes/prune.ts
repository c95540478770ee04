/** `/project/task/prune`: answers of a server that cannot analyse yet. */
import { z } from 'zod';
import type { JobsApi, TasksApi } from '../../domain/contracts.js';
import { unsupported } from '../../domain/errors.js';
import { defineRoute, type Route } from '../route.js';
import { tid } from './shapes.js';

export interface PruneServices {
  readonly tasks: TasksApi;
  readonly jobs: JobsApi;
}

export function pruneRoutes({ tasks, jobs }: PruneServices): Route[] {
  return [
    defineRoute({
      method: 'get',
      path: '/project/task/prune',
      summary: 'State of the pruning analysis; null when never started',
      tag: 'training',
      input: z.object({ tid }),
      output: z.object({ prune_status: z.int().nullable(), message: z.string() }),
      async handle(input) {
        const record = jobs.get(input.tid, 'prune');
        return { prune_status: record?.status ?? null, message: record?.message ?? 'Not analysed for pruning.' };
      },
    }),
    defineRoute({
      method: 'post',
      path: '/project/task/prune',
      summary: 'Starts the pruning analysis (not available yet)',
      tag: 'training',
      input: z.object({ tid }),
      output: z.object({}),
      async handle(input) {
        await tasks.checkpoint(input.tid, null);
        throw unsupported('The pruning analysis is not available yet.');
      },
    }),
    defineRoute({
      method: 'put',
      path: '/project/task/prune',
      summary: 'Stops the pruning analysis',
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
