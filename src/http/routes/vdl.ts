/** Training curves: our own page in the place of VisualDL. */
import { z } from 'zod';
import type { TasksApi, TrainingApi } from '../../domain/contracts.js';
import { toCurves } from '../../domain/curves.js';
import { notReady } from '../../domain/errors.js';
import { pruningView } from '../../domain/pruned-training.js';
import type { Page } from '../app.js';
import type { Assets } from '../assets.js';
import { envelope, JSON_TYPE } from '../envelope.js';
import { defineRoute, type Route } from '../route.js';

export interface VdlServices {
  readonly tasks: Pick<TasksApi, 'get'>;
  readonly training: Pick<TrainingApi, 'curves' | 'record'>;
}

export function vdlRoutes({ tasks, training }: VdlServices, pathPrefix = ''): Route[] {
  return [
    defineRoute({
      method: 'get',
      path: '/project/task/vdl',
      summary: "Address of a task's training curves, without scheme",
      tag: 'task',
      input: z.object({ tid: z.string().min(1).describe('Task') }),
      output: z.object({ url: z.string() }),
      async handle({ tid }, ctx) {
        const task = tasks.get(tid);
        if (training.curves(tid).length === 0) {
          throw notReady(
            `${tid} has no training curves yet.`,
            'Start its training and wait for the first logged step.',
          );
        }
        return { url: `${ctx.authority}${pathPrefix}/board/${task.id}` };
      },
    }),
  ];
}

/** The page works before the first step too: it waits for it. */
export function boardPages({ tasks, training }: VdlServices, assets: Assets): Page[] {
  return [
    {
      path: '/board/:tid',
      role: 'read',
      handle(ctx) {
        tasks.get(ctx.params.tid ?? '');
        assets.send(ctx, 'board.html');
      },
    },
    {
      path: '/board/:tid/data',
      role: 'read',
      handle(ctx) {
        const task = tasks.get(ctx.params.tid ?? '');
        const record = training.record(task.id);
        ctx.status = 200;
        ctx.type = JSON_TYPE;
        ctx.set('cache-control', 'no-store');
        ctx.body = envelope({
          tid: task.id,
          pid: task.pid,
          task_status: task.status,
          num_epochs: record?.num_epochs ?? null,
          epoch: record?.train_metrics?.Epoch ?? null,
          eta: record?.eta ?? null,
          best_epoch: record?.best_epoch ?? null,
          images_per_second: record?.images_per_second ?? null,
          pruning: record?.pruning == null ? null : pruningView(record.pruning),
          ...toCurves(training.curves(task.id)),
        });
      },
    },
  ];
}
