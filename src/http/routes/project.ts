/** `/project`. */
import { z } from 'zod';
import type { ProjectsApi } from '../../domain/contracts.js';
import type { ProjectRecord, TaskRecord } from '../../domain/records.js';
import type { Repository } from '../../domain/repository.js';
import { defineRoute, type Route } from '../route.js';
import { AnswerCache, desc, force, name, pid, readType, typeArg, typeName } from './shapes.js';

export interface ProjectServices {
  readonly projects: ProjectsApi;
  readonly store: Pick<Repository, 'revision' | 'list'>;
}

const attr = z.object({
  id: z.string(),
  name: z.string(),
  desc: z.string(),
  type: typeName,
  did: z.string().describe('Bound dataset, or empty'),
  path: z.string(),
  create_time: z.string(),
  remote: z.boolean().optional(),
  tasks: z.array(z.int()).describe('States of its tasks'),
  task_status: z.record(z.string(), z.object({ status: z.int() })).optional(),
});

const shape = ({ id, name, desc, type, did, path, create_time, remote }: ProjectRecord) => ({
  id,
  name,
  desc,
  type,
  did,
  path,
  create_time,
  ...(remote ? { remote } : {}),
});

function statesByProject(tasks: readonly TaskRecord[]): Map<string, number[]> {
  const states = new Map<string, number[]>();
  for (const task of tasks) {
    const list = states.get(task.pid);
    if (list === undefined) states.set(task.pid, [task.status]);
    else list.push(task.status);
  }
  return states;
}

export function projectRoutes({ projects, store }: ProjectServices): Route[] {
  const cache = new AnswerCache();
  return [
    defineRoute({
      method: 'get',
      path: '/project',
      summary: 'One project with the states of its tasks, or all',
      tag: 'project',
      input: z.object({ id: pid.nullish() }),
      output: z.object({
        attr: attr.optional(),
        projects: z.array(z.object({ id: z.string(), attr })).optional(),
      }),
      async handle(input) {
        const revision = store.revision('project', 'task');
        if (input.id == null) {
          return cache.get('', revision, () => {
            const states = statesByProject(store.list('task'));
            return {
              projects: projects
                .list()
                .map((record) => ({ id: record.id, attr: { ...shape(record), tasks: states.get(record.id) ?? [] } })),
            };
          });
        }
        const record = projects.get(input.id);
        const tasks = projects.tasksOf(record.id);
        return {
          attr: {
            ...shape(record),
            tasks: tasks.map((task) => task.status),
            task_status: Object.fromEntries(tasks.map((task) => [task.id, { status: task.status }])),
          },
        };
      },
    }),
    defineRoute({
      method: 'post',
      path: '/project',
      summary: 'Creates a project; bind its dataset with PUT /workspace',
      tag: 'project',
      input: z.object({ name, desc, project_type: typeArg }),
      output: z.object({ pid: z.string() }),
      async handle(input) {
        const type = readType('project_type', input.project_type);
        const { id } = await projects.create({ name: input.name, desc: input.desc ?? '', ...type });
        return { pid: id };
      },
    }),
    defineRoute({
      method: 'delete',
      path: '/project',
      summary: 'Deletes a project with all its tasks',
      tag: 'project',
      input: z.object({ pid, force }),
      output: z.object({}),
      async handle(input) {
        await projects.delete(input.pid, { force: input.force === true });
        return {};
      },
    }),
  ];
}
