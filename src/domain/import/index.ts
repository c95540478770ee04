/**
 * Adopts a workspace of PaddleX in place: its records, states and results enter the store; its files stay as they are,
 * so that the old server can still open the folder. Importing again adds only what is new.
 */
import { mkdir, readdir, realpath } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { writeFileAtomic } from '../atomic-file.js';
import { ID_PREFIX, type NumberedKind, type ProjectRecord } from '../records.js';
import type { Repository } from '../repository.js';
import { localTime } from '../time.js';
import { ImportContext, isFile, type LightCalls, mapLimited, readType } from './context.js';
import { importDataset, orphanDatasets } from './datasets.js';
import { Locator } from './locate.js';
import { importExported, importPretrained } from './models.js';
import type { ProjectMessage, WorkspaceMessage } from './proto.js';
import { importTask } from './tasks.js';
import { ID, readWorkspace } from './workspace-file.js';

export type { LightCalls } from './context.js';
export { isPaddlexWorkspace } from './workspace-file.js';

export interface ImportOptions extends LightCalls {
  onProgress?: (done: number, total: number, what: string) => void;
}

export interface ImportReport {
  /** File that the records came from. */
  from: string;
  /** Version of the workspace file. */
  version: string;
  /** Records added by kind. */
  added: Record<NumberedKind, number>;
  /** Records that were in the store already. */
  known: number;
  /** Everything that is not as it was, one sentence each. */
  warnings: string[];
}

/** Left in the state folder by a finished import, with its report: later starts do not bring back what was deleted since. */
const MARK = '.oarlock/paddlex-import.json';

/** Whether this folder was taken over before. */
export const wasImported = (root: string): Promise<boolean> => isFile(join(root, MARK));

/** Reading several tasks at a time hides the latency of disks; more would only crowd the worker pool. */
const AT_ONCE = 4;

/**
 * @param dir folder that PaddleX was given as `--workspace_dir`; it must be the folder of `store`.
 * @throws OarlockError when the folder is no PaddleX workspace or its file is damaged beyond the copies.
 */
export async function importWorkspace(dir: string, store: Repository, options: ImportOptions): Promise<ImportReport> {
  const root = await realpath(dir);
  const found = await readWorkspace(root);
  const context = new ImportContext(new Locator(root, found.workspace.path), options);
  for (const warning of found.warnings) context.warn(warning);
  const source = await collect(context, root, found.workspace);
  let done = 0;
  const total = source.datasets.length + source.tasks.length + source.pretrained.length + source.exported.length;
  const step = async <T>(what: string, work: Promise<T>): Promise<T> => {
    const result = await work;
    options.onProgress?.(++done, total, what);
    return result;
  };
  const present = <T>(list: (T | undefined)[]): T[] => list.filter((entry) => entry !== undefined);
  const datasets = present(
    await mapLimited(source.datasets, AT_ONCE, (message) => step(message.id, importDataset(context, message))),
  );
  const projects = await importProjects(context, source.projects, new Set(datasets.map(({ id }) => id)));
  const typeOf = new Map(projects.map((project) => [project.id, project.type]));
  const tasks = present(
    await mapLimited(source.tasks, AT_ONCE, async (message) => {
      const type = typeOf.get(message.pid);
      if (type === undefined) context.warn(`Task ${message.id} is left out: its project ${message.pid} is gone.`);
      return step(message.id, type === undefined ? Promise.resolve(undefined) : importTask(context, message, type));
    }),
  );
  const pretrained = present(
    await mapLimited(source.pretrained, AT_ONCE, (message) => step(message.id, importPretrained(context, message))),
  );
  const exported = present(
    await mapLimited(source.exported, AT_ONCE, (message) => step(message.id, importExported(context, message))),
  );

  const added: Record<NumberedKind, number> = { dataset: 0, project: 0, task: 0, pretrained: 0, exported: 0 };
  const counters = await highestIds(root, found.workspace);
  await store.change((tx) => {
    const put = (kind: NumberedKind, record: { id: string }): boolean => {
      if (tx.get(kind, record.id) !== undefined) return false;
      tx.put(kind, record as never);
      added[kind]++;
      return true;
    };
    for (const dataset of datasets) put('dataset', dataset);
    for (const project of projects) put('project', project);
    const newTasks = tasks.filter(({ task }) => put('task', task));
    for (const { task, training, sideJobs, points } of newTasks) {
      if (training !== undefined) tx.put('training', training);
      for (const job of sideJobs) tx.put('sidejob', job);
      if (points.length > 0) tx.addCurve(task.id, points);
    }
    for (const model of pretrained) put('pretrained', model);
    for (const model of exported) put('exported', model);
    for (const [kind, upTo] of Object.entries(counters)) tx.reserveIds(kind as NumberedKind, upTo);
  });
  const all = datasets.length + projects.length + tasks.length + pretrained.length + exported.length;
  const sum = Object.values(added).reduce((a, b) => a + b, 0);
  const report = {
    from: found.from,
    version: found.workspace.version,
    added,
    known: all - sum,
    warnings: context.warnings,
  };
  await mkdir(join(root, dirname(MARK)), { recursive: true });
  await writeFileAtomic(join(root, MARK), `${JSON.stringify({ at: localTime(), ...report }, null, 1)}\n`);
  return report;
}

/** The file's records in order of id, without those whose id is none, and with the datasets that only the disk knows. */
async function collect(context: ImportContext, root: string, workspace: WorkspaceMessage) {
  const records = <T extends { id: string }>(map: Record<string, T>, prefix: string): T[] =>
    Object.entries(map)
      .filter(([key]) => {
        const good = ID.test(key) && new RegExp(`^${prefix}\\d`).test(key);
        if (!good) context.warn(`A record with the id "${key.slice(0, 40)}" is left out.`);
        return good;
      })
      .map(([key, record]) => ({ ...record, id: key }))
      .sort((a, b) => number(a.id) - number(b.id));
  const projects = records(workspace.projects, 'P');
  const datasets = records(workspace.datasets, 'D');
  const orphans = await orphanDatasets(root, new Set(datasets.map(({ id }) => id)), projects);
  for (const { id } of orphans) context.warn(`Dataset ${id} has no record and is adopted from its folder.`);
  return {
    datasets: [...datasets, ...orphans],
    projects,
    tasks: records(workspace.tasks, 'T'),
    pretrained: records(workspace.pretrained_models, 'PM'),
    exported: records(workspace.exported_models, 'EM'),
  };
}

async function importProjects(
  context: ImportContext,
  messages: ProjectMessage[],
  datasets: ReadonlySet<string>,
): Promise<ProjectRecord[]> {
  const projects: ProjectRecord[] = [];
  for (const message of messages) {
    const type = readType(message.type);
    const place = type && (await context.locator.folder(message.path, `projects/${message.id}`));
    if (type === undefined || place === undefined) {
      const why =
        type === undefined ? `has the unknown type "${message.type}"` : `lies outside the workspace (${message.path})`;
      context.warn(`Project ${message.id} ${why} and is left out.`);
      continue;
    }
    const bound = message.did === '' || datasets.has(message.did);
    if (!bound) context.warn(`Project ${message.id} was bound to dataset ${message.did}, which is gone.`);
    projects.push({
      id: message.id,
      name: message.name || message.id,
      desc: message.desc,
      ...type,
      did: bound ? message.did : '',
      path: place.path,
      create_time: message.create_time || localTime(new Date()),
    });
  }
  return projects;
}

const number = (id: string): number => Number(/\d+$/.exec(id)?.[0] ?? 0);

/** Ids never come again: the stored counters, the records and the folder names all count. */
async function highestIds(root: string, workspace: WorkspaceMessage): Promise<Record<NumberedKind, number>> {
  const names = async (folder: string): Promise<string[]> => readdir(join(root, folder)).catch(() => [] as string[]);
  const projects = (await names('projects')).filter((name) => /^P\d{1,9}$/.test(name));
  const tasks = (await mapLimited(projects, AT_ONCE, (project) => names(join('projects', project)))).flat();
  const highest = (kind: NumberedKind, counter: number, ids: string[]): number =>
    Math.max(counter, ...ids.filter((id) => new RegExp(`^${ID_PREFIX[kind]}\\d{1,9}$`).test(id)).map(number), 0);
  return {
    dataset: highest('dataset', workspace.max_dataset_id, [
      ...Object.keys(workspace.datasets),
      ...(await names('datasets')),
    ]),
    project: highest('project', workspace.max_project_id, [...Object.keys(workspace.projects), ...projects]),
    task: highest('task', workspace.max_task_id, [...Object.keys(workspace.tasks), ...tasks]),
    pretrained: highest('pretrained', workspace.max_pretrained_model_id, [
      ...Object.keys(workspace.pretrained_models),
      ...(await names('pretrain')),
    ]),
    exported: highest('exported', workspace.max_exported_model_id, Object.keys(workspace.exported_models)),
  };
}
