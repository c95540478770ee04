/** Training parameters: suggested for a project, stored with a task. */
import { z } from 'zod';
import type { TasksApi } from '../../domain/contracts.js';
import { invalidArgument } from '../../domain/errors.js';
import { readTrainArgument } from '../../domain/params/index.js';
import { defineRoute, type Route } from '../route.js';

export interface ParamsServices {
  readonly tasks: Pick<TasksApi, 'params' | 'setParams' | 'suggest'>;
}

const TRAIN = z.record(z.string(), z.unknown());

/** `[0, 1]`, `"0,1"`, `"[0, 1]"` or `0`: clients send all of them. */
const gpuList = z.preprocess((value) => {
  if (typeof value === 'number') return [value];
  if (typeof value !== 'string') return value ?? undefined;
  const inner = value
    .trim()
    .replace(/^\[|\]$/g, '')
    .trim();
  return inner === '' ? [] : inner.split(',').map((part) => (/^\s*\d+\s*$/.test(part) ? Number(part) : part));
}, z.array(z.int().min(0).max(1023)).max(64).optional());

export function paramsRoutes({ tasks }: ParamsServices): Route[] {
  return [
    defineRoute({
      method: 'get',
      path: '/project/task/params',
      summary: "A task's stored parameters, or suggestions for a new task of a project",
      tag: 'task',
      input: z.object({
        tid: z.string().min(1).optional().describe('Task; wins over `pid`'),
        pid: z.string().min(1).optional().describe('Project whose dataset is imported'),
        model_type: z.string().nullish().describe('Model to suggest for; default: the first of the project type'),
        gpu_list: gpuList.describe('GPU numbers to suggest for; ignored on a machine without GPU'),
      }),
      output: z.object({ train: TRAIN }),
      async handle({ tid, pid, model_type, gpu_list }) {
        if (tid !== undefined) return { train: tasks.params(tid) };
        if (pid === undefined) throw invalidArgument('tid', 'Either tid or pid is required.');
        const train = await tasks.suggest(pid, {
          ...(model_type ? { model: model_type } : {}),
          ...(gpu_list === undefined ? {} : { gpus: gpu_list }),
        });
        return { train };
      },
    }),
    defineRoute({
      method: 'post',
      path: '/project/task/params',
      summary: 'Changes parameters of a task that has not been trained',
      tag: 'task',
      input: z.object({
        tid: z.string().min(1).describe('Task'),
        train: z.union([TRAIN, z.string()]).describe('Parameters to change, as an object or the same as JSON text'),
      }),
      output: z.object({}),
      async handle({ tid, train }) {
        await tasks.setParams(tid, readTrainArgument(train));
        return {};
      },
    }),
  ];
}
