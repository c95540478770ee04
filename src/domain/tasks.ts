/** Tasks: their parameters, states and checkpoints. Training itself is in training.ts. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { writeFileAtomic } from './atomic-file.js';
import { readChannels } from './channels.js';
import { checkpointFolder, savedEpochs } from './checkpoints.js';
import { checkText, type DomainContext, Locks } from './context.js';
import type { NewTask, TasksApi } from './contracts.js';
import { DatasetStatus, type ProjectType, TaskStatus } from './enums.js';
import { conflict, invalidArgument, notFound, notReady } from './errors.js';
import {
  createStored,
  mergeStored,
  readStored,
  suggestParams,
  type TaskDefaults,
  type TrainParams,
} from './params/index.js';
import { type DatasetRecord, SIDE_JOBS, type TaskRecord } from './records.js';
import type { Tx } from './repository.js';
import { stateName } from './states.js';
import { localTime } from './time.js';
import type { Trash } from './trash.js';

/** What deleting needs to know about running work; implemented where the work is. */
export interface TaskGuard {
  /** Throws `conflict` while a training, export or other job of the task runs. `what` begins the sentence. */
  refuseWhileBusy(task: TaskRecord, what: string): void;
  /** Stops whatever runs; resolves when it has ended. */
  stopWork(tid: string): Promise<void>;
}

/** What a pruning task does not take from its parent. */
const NOT_INHERITED: TrainParams = {
  resume_checkpoint: null,
  sensitivities_path: null,
  pruned_flops: null,
  eval_metric_loss: null,
};

/** A pruning task has its parent's network, whatever else of its training is changed. */
function refuseOtherNetwork({ id, parent_id, params }: TaskRecord, train: TrainParams): void {
  for (const field of ['model', 'backbone']) {
    if ((train[field] ?? null) === (params[field] ?? null)) continue;
    throw invalidArgument(
      field,
      `${id} prunes the model of ${parent_id}: its ${field} stays ${String(params[field] ?? 'without one')}.`,
      'Create a task without parent_id for another model.',
    );
  }
}

/** Removes a task's records, not its folder. */
export function removeTask(tx: Tx, tid: string): void {
  tx.remove('task', tid);
  tx.remove('training', tid);
  for (const job of SIDE_JOBS) tx.remove('sidejob', `${tid}/${job}`);
  tx.clearCurve(tid);
}

export class Tasks implements TasksApi {
  readonly #context: DomainContext;
  readonly #trash: Trash;
  readonly #guard: TaskGuard;
  readonly #mirrors = new Locks();
  /** Lists by project, valid for one revision of the tasks. */
  #byProject: { revision: string; lists: Map<string, TaskRecord[]> } | undefined;

  /** Completed parameters of a record, which never changes. */
  readonly #complete = new WeakMap<TaskRecord, TrainParams>();

  constructor(context: DomainContext, trash: Trash, guard: TaskGuard) {
    this.#context = context;
    this.#trash = trash;
    this.#guard = guard;
  }

  get(tid: string): TaskRecord {
    const record = this.#context.store.get('task', tid);
    if (record === undefined) throw notFound('task', tid);
    return record;
  }

  list(pid?: string): readonly TaskRecord[] {
    const { store } = this.#context;
    const all = store.list('task');
    if (pid === undefined) return all;
    const revision = store.revision('task');
    if (this.#byProject?.revision !== revision) {
      const lists = new Map<string, TaskRecord[]>();
      for (const task of all) {
        const list = lists.get(task.pid);
        if (list === undefined) lists.set(task.pid, [task]);
        else list.push(task);
      }
      this.#byProject = { revision, lists };
    }
    return this.#byProject.lists.get(pid) ?? [];
  }

  typeOf(task: TaskRecord): ProjectType {
    const project = this.#context.store.get('project', task.pid);
    if (project === undefined) throw notFound('project', task.pid);
    return project.type;
  }

  async create({ pid, train = {}, desc = '', parent_id = '' }: NewTask): Promise<TaskRecord> {
    checkText('desc', desc);
    const { store, events, config, log } = this.#context;
    const dataset = this.#datasetOf(pid);
    const parent = parent_id === '' ? undefined : this.#parent(parent_id, pid);
    const stored =
      parent === undefined
        ? createStored(dataset.type, train, await this.#defaults(dataset))
        : { train: { ...parent.params, ...NOT_INHERITED }, warnings: [] };
    for (const warning of stored.warnings) log.info({ pid }, warning);
    const task = await store.change((tx) => {
      if (tx.get('project', pid) === undefined) throw notFound('project', pid);
      const id = tx.nextId('task');
      const path = join(config.workspace, 'projects', pid, id);
      const created: TaskRecord = {
        id,
        name: '',
        desc,
        pid,
        path,
        create_time: localTime(),
        parent_id,
        status: TaskStatus.XINIT,
        message: stored.warnings.join('\n'),
        settled: TaskStatus.XINIT,
        params: stored.train,
      };
      tx.put('task', created);
      mkdirSync(path, { recursive: true });
      return created;
    });
    this.#mirrorParams(task);
    events.publish('task', { id: task.id, pid, action: 'created', status: task.status });
    return task;
  }

  async delete(tid: string, options: { force?: boolean } = {}): Promise<void> {
    const { store, events } = this.#context;
    this.get(tid);
    if (options.force === true) await this.#guard.stopWork(tid);
    const task = await store.change((tx) => {
      const current = tx.get('task', tid);
      if (current === undefined) throw notFound('task', tid);
      this.#guard.refuseWhileBusy(current, `${tid} cannot be deleted`);
      removeTask(tx, tid);
      this.#trash.discard(tx, current.path);
      return current;
    });
    events.publish('task', { id: tid, pid: task.pid, action: 'deleted' });
    await this.#trash.sweep();
  }

  params(tid: string): TrainParams {
    const task = this.get(tid);
    let params = this.#complete.get(task);
    if (params === undefined) {
      params = readStored(this.typeOf(task), task.params).train;
      this.#complete.set(task, params);
    }
    return params;
  }

  async setParams(tid: string, train: Readonly<Record<string, unknown>>): Promise<void> {
    const { store, events, log } = this.#context;
    const type = this.typeOf(this.get(tid));
    const task = await store.change((tx) => {
      const current = tx.get('task', tid);
      if (current === undefined) throw notFound('task', tid);
      if (current.status !== TaskStatus.XINIT) {
        throw conflict(
          stateName('task', current.status),
          `The parameters of ${tid} can only be changed before its training.`,
          'Create a new task with the parameters you want.',
        );
      }
      const merged = mergeStored(type, current.params, train);
      for (const warning of merged.warnings) log.info({ tid }, warning);
      if (current.parent_id !== '') refuseOtherNetwork(current, merged.train);
      const changed = { ...current, params: merged.train };
      tx.put('task', changed);
      return changed;
    });
    this.#mirrorParams(task);
    events.publish('task', { id: tid, pid: task.pid, action: 'changed', status: task.status });
  }

  async suggest(pid: string, options: { model?: string; gpus?: readonly number[] } = {}): Promise<TrainParams> {
    const dataset = this.#datasetOf(pid);
    if (dataset.status !== DatasetStatus.XCOPYDONE && dataset.status !== DatasetStatus.XSPLITED) {
      throw notReady(`The dataset ${dataset.id} of ${pid} is not imported yet.`, 'Import it first (PUT /dataset).');
    }
    const defaults = await this.#defaults(dataset, options.gpus ?? [0]);
    const { train, warnings } = suggestParams({ ...defaults, type: dataset.type, model: options.model });
    for (const warning of warnings) this.#context.log.info({ pid }, warning);
    return train;
  }

  savedEpochs(tid: string): Promise<number[]> {
    return savedEpochs(this.get(tid));
  }

  checkpoint(tid: string, epoch: number | null): Promise<string> {
    return checkpointFolder(this.get(tid), epoch);
  }

  storedParams(tid: string): Record<string, unknown> {
    const task = this.get(tid);
    const project = this.#context.store.get('project', task.pid);
    const dataset = this.#context.store.get('dataset', project?.did ?? '');
    return {
      tid,
      pid: task.pid,
      desc: task.desc,
      ...(task.parent_id === '' ? {} : { parent_id: task.parent_id }),
      task_type: this.typeOf(task),
      dataset_path: dataset?.path ?? '',
      pretrain_weights_download_save_dir: join(this.#context.config.workspace, 'pretrain'),
      train: this.params(tid),
    };
  }

  /** The dataset that a project is bound to. */
  #datasetOf(pid: string): DatasetRecord {
    const { store } = this.#context;
    const project = store.get('project', pid);
    if (project === undefined) throw notFound('project', pid);
    const dataset = store.get('dataset', project.did);
    if (dataset !== undefined) return dataset;
    throw notReady(
      project.did === '' ? `${pid} has no dataset.` : `The dataset ${project.did} of ${pid} is gone.`,
      `Bind one: PUT /workspace with {"struct": "project", "id": "${pid}", "attr_dict": {"did": "D…"}}.`,
    );
  }

  #parent(parentId: string, pid: string): TaskRecord {
    const parent = this.get(parentId);
    if (parent.pid !== pid)
      throw invalidArgument('parent_id', `${parentId} belongs to another project (${parent.pid}).`);
    return parent;
  }

  /** What defaults follow from: the data and the machine. Without a split the number of training images is not known. */
  async #defaults(dataset: DatasetRecord, wanted?: readonly number[]): Promise<TaskDefaults> {
    const { compute, weights } = this.#context;
    const { gpus: present } = await compute.devices();
    const chosen = wanted === undefined ? present.slice(0, 1) : present.filter((gpu) => wanted.includes(gpu.index));
    const channels = dataset.remote === true ? await readChannels(dataset.path).catch(() => undefined) : undefined;
    return {
      ...(channels === undefined ? {} : { channels }),
      trainImages: dataset.status === DatasetStatus.XSPLITED ? (dataset.counts?.train ?? null) : null,
      classes: dataset.counts?.labels ?? 0,
      gpus: chosen.map((gpu) => gpu.index),
      freeMemoryMb: chosen.length === 0 ? 0 : Math.min(...chosen.map((gpu) => gpu.memoryFreeMb)),
      hasWeights: (key) => weights.has(key),
    };
  }

  /** `params.json` is for people and old scripts; the store has the truth. */
  #mirrorParams(task: TaskRecord): void {
    const { log, background, store } = this.#context;
    const write = async (): Promise<void> => {
      const text = `${JSON.stringify(this.storedParams(task.id), null, 1)}\n`;
      await writeFileAtomic(join(task.path, 'params.json'), text);
    };
    // One after the other, the newest values last.
    const written = this.#mirrors.run(task.id, write).catch((error: NodeJS.ErrnoException) => {
      const deleted = error.code === 'ENOENT' || store.get('task', task.id) === undefined;
      if (!deleted) log.warn({ err: error, tid: task.id }, 'params.json could not be written');
    });
    background(written);
  }
}
