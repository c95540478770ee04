/** Saved models: pretrained ones (copies of checkpoints) and exported ones (folders that clients named). */
import { cp, mkdir, readdir, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { syncFolder, temporaryName } from './atomic-file.js';
import { checkText, type DomainContext, explain, shown } from './context.js';
import type { JobsApi, ModelsApi, NewModel, TasksApi } from './contracts.js';
import type { Datasets } from './datasets.js';
import { PretrainedModelStatus as Status, TaskStatus } from './enums.js';
import { invalidArgument, notFound, notReady } from './errors.js';
import { LITE, measuredAt } from './export-plan.js';
import { isInside } from './paths.js';
import type { ExportedRecord, PretrainedRecord, TaskRecord } from './records.js';
import { next } from './states.js';
import { localTime } from './time.js';
import type { Trash } from './trash.js';

/** What exports put into their `save_dir`. */
const [FOLDER, LITE_FOLDER] = ['inference_model', 'lite_model'];
const MODEL = /^model\.(onnx|ort)$/;
const WEIGHTS = /\.(safetensors|pdparams|pth)$/i;

export class Models implements ModelsApi {
  readonly #context: DomainContext;
  readonly #tasks: TasksApi;
  readonly #jobs: JobsApi;
  readonly #datasets: Datasets;
  readonly #trash: Trash;
  readonly #saving = new Map<string, Promise<void>>();

  constructor(context: DomainContext, tasks: TasksApi, jobs: JobsApi, datasets: Datasets, trash: Trash) {
    this.#context = context;
    this.#tasks = tasks;
    this.#jobs = jobs;
    this.#datasets = datasets;
    this.#trash = trash;
  }

  pretrained(): readonly PretrainedRecord[] {
    return this.#context.store.list('pretrained');
  }

  exported(): readonly ExportedRecord[] {
    const { store } = this.#context;
    return store.list('exported').filter((model) => {
      if (store.get('task', model.tid) === undefined) return true;
      return store.get('sidejob', `${model.tid}/export`)?.status === TaskStatus.XEXPORTED;
    });
  }

  get(mid: string): PretrainedRecord | ExportedRecord {
    const { store } = this.#context;
    const record = store.get('pretrained', mid) ?? store.get('exported', mid);
    if (record === undefined) throw notFound('model', mid);
    return record;
  }

  async addPretrained(model: NewModel): Promise<PretrainedRecord> {
    const task = this.#taskOf(model);
    if (model.source_path === undefined || model.source_path === '') {
      throw invalidArgument(
        'source_path',
        'source_path is missing; it must be the folder of a saved epoch or best model.',
      );
    }
    const source = await this.#context.paths.resolveFolder(model.source_path, { field: 'source_path' });
    if (!(await readdir(source)).some((name) => WEIGHTS.test(name))) {
      throw notReady(
        `${model.source_path} holds no weights.`,
        'Use output/best_model or output/epoch_N of a trained task.',
      );
    }
    await this.#context.requireSpace();
    const described = await this.#describe(task, model);
    const { store, events, config } = this.#context;
    const record = await store.change((tx) => {
      if (tx.get('task', task.id) === undefined) throw notFound('task', task.id);
      const id = tx.nextId('pretrained');
      const saved: PretrainedRecord = {
        id,
        ...described,
        path: join(config.workspace, 'pretrain', id),
        status: next('pretrained', id, Status.XPINIT, 'save') as PretrainedRecord['status'],
        message: '',
        source,
      };
      tx.put('pretrained', saved);
      return saved;
    });
    events.publish('model', { id: record.id, action: 'created' });
    this.#save(record);
    return record;
  }

  async addExported(model: NewModel): Promise<ExportedRecord> {
    const task = this.#taskOf(model);
    if (model.path === undefined || model.path === '') {
      throw invalidArgument('path', 'path is missing; it must be the folder of the exported model.');
    }
    const path = await this.#context.paths.resolveNew(model.path, { field: 'path' });
    const there = await stat(path).catch(() => undefined);
    if (there !== undefined && !there.isDirectory())
      throw invalidArgument('path', `${model.path} is a file; path must be a folder.`);
    const described = await this.#describe(task, { ...model, eval_results: {} });
    const { store, events } = this.#context;
    const record = await store.change((tx) => {
      if (tx.get('task', task.id) === undefined) throw notFound('task', task.id);
      const id = tx.nextId('exported');
      const exported_type = model.exported_type ?? 0;
      const measured = exported_type === LITE ? undefined : measuredAt(tx.get('sidejob', `${task.id}/export`), path);
      const added: ExportedRecord = {
        id,
        ...described,
        path,
        exported_type,
        ...(measured === undefined ? {} : { measured }),
      };
      tx.put('exported', added);
      return added;
    });
    events.publish('model', { id: record.id, action: 'created' });
    return record;
  }

  async deletePretrained(pmid: string): Promise<void> {
    if (this.#context.store.get('pretrained', pmid) === undefined) throw notFound('pretrained model', pmid);
    await this.#saving.get(pmid);
    await this.#context.store.change((tx) => {
      const record = tx.get('pretrained', pmid);
      if (record === undefined) throw notFound('pretrained model', pmid);
      tx.remove('pretrained', pmid);
      this.#trash.discard(tx, record.path);
    });
    this.#context.events.publish('model', { id: pmid, action: 'deleted' });
    await this.#trash.sweep();
  }

  async deleteExported(emid: string): Promise<void> {
    const { store, events } = this.#context;
    const given = store.get('exported', emid);
    if (given === undefined) throw notFound('exported model', emid);
    const folders = await this.#removable(given);
    await store.change((tx) => {
      if (tx.get('exported', emid) === undefined) throw notFound('exported model', emid);
      tx.remove('exported', emid);
      const shared = tx.list('exported').some((other) => other.path === given.path);
      if (!shared) for (const folder of folders) this.#trash.discard(tx, folder);
    });
    events.publish('model', { id: emid, action: 'deleted' });
    await this.#trash.sweep();
  }

  /** Copies that a crash interrupted begin again. */
  async recover(): Promise<void> {
    for (const record of this.pretrained()) if (record.status <= Status.XPSAVING) this.#save(record);
  }

  async settled(): Promise<void> {
    await Promise.all(this.#saving.values());
  }

  #taskOf({ pid, tid, name }: NewModel): TaskRecord {
    checkText('name', name);
    const task = this.#tasks.get(tid);
    if (this.#context.store.get('project', pid) === undefined) throw notFound('project', pid);
    if (task.pid !== pid) throw invalidArgument('pid', `${tid} belongs to ${task.pid}, not to ${pid}.`);
    return task;
  }

  /** What is kept of task and dataset, so that the model tells where it comes from when they are gone. */
  async #describe(task: TaskRecord, model: NewModel) {
    const { store } = this.#context;
    const { train, ...rest } = this.#tasks.storedParams(task.id) as { train: Record<string, unknown> };
    const dataset = store.get('dataset', store.get('project', task.pid)?.did ?? '');
    const labels = dataset === undefined ? [] : await this.#datasets.labels(dataset.id);
    const { report } = await this.#jobs.report(task.id);
    const { counts = null, name = '', desc = '' } = dataset ?? {};
    const backbone = typeof train.backbone === 'string' && train.backbone !== '' ? `-${train.backbone}` : '';
    const fpn = /RCNN$/.test(String(train.model)) && train.with_fpn === true ? '-WITH_FPN' : '';
    return {
      name: model.name,
      model: `${train.model}${backbone}${fpn}`,
      type: this.#tasks.typeOf(task),
      pid: task.pid,
      tid: task.id,
      create_time: localTime(),
      dataset_attr: {
        name,
        desc,
        labels,
        train_num: counts?.train ?? 0,
        val_num: counts?.val ?? 0,
        test_num: counts?.test ?? 0,
      },
      task_params: { ...rest, train },
      eval_result:
        model.eval_results !== undefined && Object.keys(model.eval_results).length > 0 ? model.eval_results : report,
    };
  }

  #save(record: PretrainedRecord): void {
    const work = this.#copy(record)
      .catch((error: unknown) =>
        this.#context.log.error({ err: error, id: record.id }, 'the end of a copy was not stored'),
      )
      .finally(() => this.#saving.delete(record.id));
    this.#saving.set(record.id, work);
  }

  async #copy(record: PretrainedRecord): Promise<void> {
    const { store, log, events } = this.#context;
    let problem: string | undefined;
    const building = temporaryName(record.path);
    try {
      await mkdir(dirname(record.path), { recursive: true });
      await cp(record.source, building, { recursive: true, dereference: false, errorOnExist: true, force: false });
      await rm(record.path, { recursive: true, force: true });
      await rename(building, record.path);
      await syncFolder(dirname(record.path));
    } catch (error) {
      await rm(building, { recursive: true, force: true }).catch(() => {});
      problem = explain(shown(error, log, 'a model could not be copied'));
    }
    await store.change((tx) => {
      const current = tx.get('pretrained', record.id);
      if (current === undefined) return;
      const saving =
        current.status === Status.XPINIT ? next('pretrained', record.id, current.status, 'save') : current.status;
      const status = next('pretrained', record.id, saving, problem === undefined ? 'done' : 'failed');
      tx.put('pretrained', { ...current, status: status as PretrainedRecord['status'], message: problem ?? '' });
    });
    events.publish('model', { id: record.id, action: 'changed' });
  }

  /**
   * Folders that go with an exported model's record: inside the workspace only, never one that holds records or
   * checkpoints, and of a shared folder only what an export of its kind put there.
   */
  async #removable(model: ExportedRecord): Promise<string[]> {
    const { store, paths, config } = this.#context;
    const root = await paths.resolve(config.workspace);
    const path = await paths.resolve(model.path).catch(() => undefined);
    if (path === undefined || path === root || !isInside(path, root)) return [];
    const names = await readdir(path).catch(() => [] as string[]);
    const [wanted, other] = model.exported_type === LITE ? [LITE_FOLDER, FOLDER] : [FOLDER, LITE_FOLDER];
    const own = [wanted, other].find((name) => names.includes(name));
    if (own === undefined) {
      const made = names.length === 0 || (names.includes('model.yml') && names.some((name) => MODEL.test(name)));
      return made && this.#isFree(path, root) ? [path] : [];
    }
    const alone = names.every((name) => name === own);
    const created = own === FOLDER && store.get('sidejob', `${model.tid}/export`)?.args.save_dir === path;
    return [(alone || created) && this.#isFree(path, root) ? path : join(path, own)];
  }

  /** Not a place of the workspace's own layout. */
  #isFree(path: string, root: string): boolean {
    const { store } = this.#context;
    const below = path.slice(root.length + 1).split('/');
    if (below.length < 2 || !['projects', 'pretrain'].includes(below[0] as string)) return false;
    if (below[0] === 'projects' && (below.length < 4 || below[3] === 'output')) return false;
    const owned = [
      ...store.list('dataset'),
      ...store.list('project'),
      ...store.list('task'),
      ...store.list('pretrained'),
    ];
    return !owned.some((record) => isInside(record.path, path));
  }
}
