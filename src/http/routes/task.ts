/** `/project/task`. */
import { z } from 'zod';
import type { TasksApi, TrainingApi } from '../../domain/contracts.js';
import { invalidArgument, notFound } from '../../domain/errors.js';
import { readTrainArgument } from '../../domain/params/index.js';
import type { ProjectRecord, TaskRecord } from '../../domain/records.js';
import type { Repository } from '../../domain/repository.js';
import { defineRoute, type Route } from '../route.js';
import { AnswerCache, desc, force, pid, tid, typeName } from './shapes.js';

export interface TaskServices {
  readonly tasks: TasksApi;
  readonly training: Pick<TrainingApi, 'message'>;
  readonly store: Pick<Repository, 'revision' | 'get'>;
}

const remote = z.boolean().optional().describe('Of a remote sensing project');
const remoteMark = (project: ProjectRecord | undefined) => (project?.remote === true ? { remote: true } : {});
const typeOf = (project: ProjectRecord) => ({ type: project.type, ...remoteMark(project) });

const STATES =
  '1 new, 3 training, 4 trained, 5 evaluated, 6 exporting, 7 exported, 8 stopped, 9 weights missing, 10 failed, 14 pruning analysis, 15 pruned training';

export function taskRoutes({ tasks, training, store }: TaskServices): Route[] {
  const cache = new AnswerCache();

  function listed(records: readonly TaskRecord[]): Record<string, unknown>[] {
    return records.flatMap((task) => {
      const project = store.get('project', task.pid);
      // A task that lost its project must not hide the others.
      if (project === undefined) return [];
      const { id, name, desc, pid, path, create_time, status } = task;
      return [{ id, name, desc, pid, path, create_time, status, ...typeOf(project) }];
    });
  }

  return [
    defineRoute({
      method: 'get',
      path: '/project/task',
      summary: 'One task by tid, those of a project by pid, or all',
      tag: 'task',
      input: z.object({
        tid: tid.nullish(),
        pid: pid.nullish().describe('All tasks of this project, even when tid is given'),
        resume: z.unknown().optional().describe('Any value: also tell whether and up to where it can be resumed'),
      }),
      output: z.object({
        task_status: z.int().optional().describe(STATES),
        message: z.string().optional(),
        type: typeName.optional(),
        remote,
        resumable: z.boolean().optional(),
        max_saved_epochs: z.int().optional().describe('-1 when none is saved'),
        tasks: z
          .array(
            z.object({
              id: z.string(),
              name: z.string(),
              desc: z.string(),
              pid: z.string(),
              path: z.string(),
              create_time: z.string(),
              status: z.int(),
              type: typeName,
              remote,
            }),
          )
          .optional(),
      }),
      async handle(input, ctx) {
        const revision = store.revision('task', 'project');
        if (input.pid != null) {
          const id = input.pid;
          if (store.get('project', id) === undefined) throw notFound('project', id);
          return cache.get(id, revision, () => ({ tasks: listed(tasks.list(id)) }));
        }
        if (ctx.given.size === 0) return cache.get('', revision, () => ({ tasks: listed(tasks.list()) }));
        if (input.tid == null) throw invalidArgument('tid', 'tid is missing.');
        const task = tasks.get(input.tid);
        const type = { type: tasks.typeOf(task), ...remoteMark(store.get('project', task.pid)) };
        const answer = { task_status: task.status, message: training.message(task), ...type };
        if (!ctx.given.has('resume')) return answer;
        const newest = (await tasks.savedEpochs(task.id)).at(-1) ?? -1;
        const epochs = Number(tasks.params(task.id).num_epochs);
        return { ...answer, resumable: newest > 0 && newest < epochs, max_saved_epochs: newest };
      },
    }),
    defineRoute({
      method: 'post',
      path: '/project/task',
      summary: 'Creates a task',
      tag: 'task',
      input: z.object({
        pid,
        train: z
          .union([z.record(z.string(), z.unknown()), z.string()])
          .nullish()
          .describe('Training parameters, as an object or the same as JSON text; missing ones take suggested values'),
        desc,
        parent_id: z
          .string()
          .nullish()
          .describe(
            'For a pruning task: the task whose model is pruned and whose parameters are copied; train is ignored',
          ),
      }),
      output: z.object({ tid: z.string() }),
      async handle(input) {
        const parent = input.parent_id ?? '';
        const { id } = await tasks.create({
          pid: input.pid,
          // A pruning task has its parent's.
          train: parent === '' ? readTrainArgument(input.train) : {},
          desc: input.desc ?? '',
          parent_id: parent,
        });
        return { tid: id };
      },
    }),
    defineRoute({
      method: 'delete',
      path: '/project/task',
      summary: 'Deletes a task and everything it has written',
      tag: 'task',
      input: z.object({ tid, force }),
      output: z.object({}),
      async handle(input) {
        await tasks.delete(input.tid, { force: input.force === true });
        return {};
      },
    }),
  ];
}
