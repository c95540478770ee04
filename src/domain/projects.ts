/** Projects: a dataset and the tasks trained on it. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { checkText, type DomainContext } from './context.js';
import type { NewProject, ProjectsApi } from './contracts.js';
import { notFound } from './errors.js';
import type { ProjectRecord, TaskRecord } from './records.js';
import { removeTask, type TaskGuard } from './tasks.js';
import { localTime } from './time.js';
import type { Trash } from './trash.js';

export class Projects implements ProjectsApi {
  readonly #context: DomainContext;
  readonly #trash: Trash;
  readonly #guard: TaskGuard;

  constructor(context: DomainContext, trash: Trash, guard: TaskGuard) {
    this.#context = context;
    this.#trash = trash;
    this.#guard = guard;
  }

  get(pid: string): ProjectRecord {
    const record = this.#context.store.get('project', pid);
    if (record === undefined) throw notFound('project', pid);
    return record;
  }

  list(): readonly ProjectRecord[] {
    return this.#context.store.list('project');
  }

  tasksOf(pid: string): readonly TaskRecord[] {
    this.get(pid);
    return this.#context.store.list('task').filter((task) => task.pid === pid);
  }

  async create({ name, desc, type, remote }: NewProject): Promise<ProjectRecord> {
    checkText('name', name);
    checkText('desc', desc);
    const { store, events, config } = this.#context;
    const record = await store.change((tx) => {
      const id = tx.nextId('project');
      const path = join(config.workspace, 'projects', id);
      const created: ProjectRecord = {
        id,
        name,
        desc,
        type,
        ...(remote ? { remote } : {}),
        did: '',
        path,
        create_time: localTime(),
      };
      tx.put('project', created);
      mkdirSync(path, { recursive: true });
      return created;
    });
    events.publish('project', { id: record.id, action: 'created' });
    return record;
  }

  async delete(pid: string, options: { force?: boolean } = {}): Promise<void> {
    const { store, events } = this.#context;
    if (options.force === true) for (const task of this.tasksOf(pid)) await this.#guard.stopWork(task.id);
    const tasks = await store.change((tx) => {
      const project = tx.get('project', pid);
      if (project === undefined) throw notFound('project', pid);
      const own = tx.list('task').filter((task) => task.pid === pid);
      for (const task of own) this.#guard.refuseWhileBusy(task, `${pid} cannot be deleted`);
      for (const task of own) removeTask(tx, task.id);
      tx.remove('project', pid);
      this.#trash.discard(tx, project.path);
      return own;
    });
    for (const task of tasks) events.publish('task', { id: task.id, pid, action: 'deleted' });
    events.publish('project', { id: pid, action: 'deleted' });
    await this.#trash.sweep();
  }
}
