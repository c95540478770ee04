/** Composition root: wires store, compute layer and domain together. */
import { existsSync, mkdirSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { Logger } from 'pino';
import type { Compute } from './compute/ports.js';
import type { DomainContext } from './domain/context.js';
import type {
  DatasetsApi,
  Health,
  JobsApi,
  ModelsApi,
  ProjectsApi,
  PruningApi,
  TasksApi,
  TrainingApi,
  WeightsApi,
  WorkspaceApi,
} from './domain/contracts.js';
import { Datasets } from './domain/datasets.js';
import { Demo, type DemoApi } from './domain/demo.js';
import { TaskStatus } from './domain/enums.js';
import { conflict } from './domain/errors.js';
import { EventBus } from './domain/events.js';
import { Jobs } from './domain/jobs.js';
import { Models } from './domain/models.js';
import { PathGuard } from './domain/paths.js';
import { Projects } from './domain/projects.js';
import { Pruning } from './domain/pruning.js';
import type { TaskRecord } from './domain/records.js';
import type { Repository } from './domain/repository.js';
import { SideJobRunner } from './domain/side-job-runner.js';
import { IN_TRAINING, stateName } from './domain/states.js';
import { type TaskGuard, Tasks } from './domain/tasks.js';
import { Training } from './domain/training.js';
import { Trash } from './domain/trash.js';
import { defaultWeightsFolder, Weights } from './domain/weights.js';
import { Workspace } from './domain/workspace.js';
import { openStore } from './store/open.js';
import { SpaceWatch } from './store/space.js';

export interface ServicesConfig {
  /** Workspace folder, absolute; created when missing. */
  workspace: string;
  /** Folders that datasets may be imported from and exports written to, absolute. */
  dataRoots: readonly string[];
  /** What becomes of trainings that ran when the server ended: go on, or stay stopped with a reason. Default `auto`. */
  resume?: 'auto' | 'never' | 'mark';
  /** Below this many free bytes on the workspace's disk new jobs are refused. Default 512 MB. */
  minFreeBytes?: number;
  /** Between two backups of the database, milliseconds. Default 10 minutes. */
  backupIntervalMs?: number;
  /** Largest decoded image of a `predict` request, bytes. Default 64 MB. */
  maxImageBytes?: number;
  /** Folder with pretrained weights that all workspaces share; the first counts. */
  weightsDirs?: readonly string[];
  /** Base URL that missing weights are fetched from; default: nothing is fetched. */
  weightsMirror?: string | null;
  /** Folder with demo archives. */
  demoDir?: string | null;
  /** Base URL that demo archives are fetched from; default: nothing is fetched. */
  demoMirror?: string | null;
  /** Processor threads of a job; 0 = all. */
  threads?: number;
}

export interface ServicesDeps {
  log: Logger;
  /** Default: the local compute layer. */
  compute?: Compute;
}

export interface Services {
  readonly config: ServicesConfig;
  readonly log: Logger;
  readonly events: EventBus;
  readonly paths: PathGuard;
  readonly compute: Compute;
  readonly store: Repository;
  readonly weights: WeightsApi;
  readonly workspace: WorkspaceApi;
  readonly datasets: DatasetsApi;
  readonly projects: ProjectsApi;
  readonly tasks: TasksApi;
  readonly training: TrainingApi;
  readonly jobs: JobsApi;
  readonly pruning: PruningApi;
  readonly models: ModelsApi;
  readonly demo: DemoApi;
  health(): Health;
  /** Ends every running job at a checkpoint; the server goes on. */
  stopAll(): Promise<void>;
  /** Trainings checkpoint and stay marked for resume; then the store closes. */
  close(graceMs: number): Promise<void>;
}

const MB = 2 ** 20;

/** Throws with what to do about it when the workspace cannot be used. */
export async function createServices(config: ServicesConfig, deps: ServicesDeps): Promise<Services> {
  const { log } = deps;
  const workspace = resolve(config.workspace);
  if (existsSync(workspace) && !statSync(workspace).isDirectory()) {
    throw new Error(`${workspace} is a file; the workspace must be a folder. Choose another with --workspace_dir.`);
  }
  mkdirSync(workspace, { recursive: true });
  const [opened, compute] = await Promise.all([
    openStore({
      workspace,
      log,
      ...(config.backupIntervalMs === undefined ? {} : { backupIntervalMs: config.backupIntervalMs }),
    }),
    deps.compute ?? import('./compute/compute.js').then(({ createCompute }) => createCompute({ workspace }, log)),
  ]);
  const { store } = opened;
  const events = new EventBus();
  const minFree = config.minFreeBytes ?? 512 * MB;
  const space = new SpaceWatch(workspace, minFree, {
    onLow(free) {
      log.warn({ free }, 'the workspace disk is nearly full: new jobs are refused');
      events.publish('system', { message: 'The workspace disk is nearly full: new jobs are refused.' });
    },
    // While a checkpoint still fits.
    onCritical(free) {
      log.error({ free }, 'the workspace disk is almost full: trainings are stopped at a checkpoint');
      context.background(training.stopAll('The workspace disk is almost full.'));
    },
  });
  const paths = new PathGuard({ workspace, data: config.dataRoots });
  const mirrorAt = async (url: string | null | undefined) =>
    typeof url === 'string' ? new (await import('./domain/mirror.js')).Mirror({ url }) : undefined;
  const mirror = await mirrorAt(config.weightsMirror);
  const weights = new Weights({
    pretrain: join(workspace, 'pretrain'),
    folder: config.weightsDirs?.[0] ?? defaultWeightsFolder(),
    mirror,
    guard: paths,
  });
  const pending = new Set<Promise<unknown>>();
  let closing = false;
  const context: DomainContext = {
    config: { workspace, threads: config.threads ?? 0, maxImageBytes: config.maxImageBytes ?? 64 * MB },
    store,
    events,
    paths,
    compute,
    weights,
    log,
    requireSpace: () => space.require(),
    background(work) {
      const kept = work.catch((error: unknown) => log.error({ err: error }, 'background work failed'));
      pending.add(kept);
      void kept.finally(() => pending.delete(kept));
    },
    get closing() {
      return closing;
    },
  };

  const trash = new Trash(context);
  const datasets = new Datasets(context, trash);
  const sideJobs = new SideJobRunner(context);
  // Training and side jobs stand on the tasks, which ask them before deleting one.
  const guard: TaskGuard = {
    refuseWhileBusy(task, what) {
      refuseWhileWorking(task, what);
      refuseWhileNeeded(store, task, what);
      sideJobs.refuseWhileRunning(task, what);
    },
    async stopWork(tid) {
      const status = store.get('task', tid)?.status;
      if (status !== undefined && IN_TRAINING.includes(status)) await training.stop(tid);
      for (const child of prunedNow(store, tid)) await training.stop(child.id);
      await sideJobs.stopTask(tid);
    },
  };
  const tasks = new Tasks(context, trash, guard);
  const jobs = new Jobs(context, sideJobs, tasks, trash);
  const training = new Training(context, tasks, trash, (task) => {
    sideJobs.refuseWhileRunning(task, `${task.id} cannot be trained`);
    refuseWhileNeeded(store, task, `${task.id} cannot be trained`);
  });
  const pruning = new Pruning(context, tasks, sideJobs, (task) =>
    refuseWhileNeeded(store, task, `${task.id} cannot be analysed anew`),
  );
  const projects = new Projects(context, trash, guard);
  const models = new Models(context, tasks, jobs, datasets, trash);
  const attributes = new Workspace(context);
  const demo = new Demo(
    context,
    { datasets, projects, tasks, workspace: attributes },
    { demoDir: config.demoDir ?? null, mirror: (await mirrorAt(config.demoMirror)) ?? null },
  );

  await adoptPaddlexWorkspace(workspace, store, compute, log);
  const goOn = (config.resume ?? 'auto') === 'auto';
  await sideJobs.recover(goOn ? ['prune'] : []);
  await Promise.all([trash.sweep(), space.measure()]);
  context.background(
    Promise.all([
      datasets.recover(),
      models.recover(),
      demo.recover(),
      training.recover(goOn ? 'auto' : 'mark'),
      pruning.recover(),
    ]),
  );

  const settled = async (): Promise<void> => {
    await Promise.all([training.settled(), sideJobs.settled(), models.settled(), trash.settled()]);
    await Promise.all(pending);
  };
  let closed: Promise<void> | undefined;
  return {
    config,
    log,
    events,
    paths,
    compute,
    store,
    weights,
    workspace: attributes,
    datasets,
    projects,
    tasks,
    training,
    jobs,
    pruning,
    models,
    demo,
    health: () => ({
      ok: !closing,
      notices: [
        ...opened.notices,
        ...(space.isLow ? ['The workspace disk is nearly full: new jobs are refused.'] : []),
      ],
      free_bytes: space.free,
      records: {
        datasets: store.list('dataset').length,
        projects: store.list('project').length,
        tasks: store.list('task').length,
        models: store.list('pretrained').length + store.list('exported').length,
      },
      compute: compute.stats(),
    }),
    async stopAll() {
      await Promise.all([training.stopAll(), sideJobs.stopAll(), datasets.stopAll('The import was stopped.')]);
    },
    close(graceMs) {
      closing = true;
      closed ??= (async () => {
        space.close();
        await demo.close();
        await compute.close(graceMs * 0.85);
        await Promise.race([settled(), new Promise((done) => setTimeout(done, graceMs * 0.1).unref())]);
        await opened.close();
      })();
      return closed;
    },
  };
}

/** Trainings that begin with that task's model and pruning analysis. */
const prunedNow = (store: Repository, tid: string): TaskRecord[] =>
  store.list('task').filter((task) => task.parent_id === tid && IN_TRAINING.includes(task.status));

function refuseWhileNeeded(store: Repository, task: TaskRecord, what: string): void {
  const [child] = prunedNow(store, task.id);
  if (child === undefined) return;
  throw conflict(
    stateName('task', child.status),
    `${what}: ${child.id}, which prunes its model, is in training.`,
    `Wait for its end, or stop it first (PUT /project/task/train of ${child.id} with act "stop").`,
  );
}

function refuseWhileWorking(task: TaskRecord, what: string): void {
  const busy = [...IN_TRAINING, TaskStatus.XEXPORTING, TaskStatus.XPRUNEING];
  if (!busy.includes(task.status)) return;
  const training = IN_TRAINING.includes(task.status);
  const doing = training ? 'is in training' : 'is busy';
  const route = training ? 'train' : task.status === TaskStatus.XPRUNEING ? 'prune' : 'export';
  throw conflict(
    stateName('task', task.status),
    `${what}: ${what.startsWith(task.id) ? 'it' : task.id} ${doing}.`,
    `Stop it first (PUT /project/task/${route} with act "stop"), or send "force": true.`,
  );
}

/** A folder that PaddleX used before: its records appear, its files stay. */
async function adoptPaddlexWorkspace(workspace: string, store: Repository, compute: Compute, log: Logger) {
  if (store.list('dataset').length + store.list('project').length > 0) return;
  const { importWorkspace, isPaddlexWorkspace, wasImported } = await import('./domain/import/index.js');
  if (!(await isPaddlexWorkspace(workspace)) || (await wasImported(workspace))) return;
  try {
    const light = <T>(fn: string, ...args: unknown[]): Promise<T> => compute.light<T>(fn, ...args);
    const report = await importWorkspace(workspace, store, { light });
    log.info({ added: report.added, from: report.from }, 'a PaddleX workspace was taken over');
    for (const warning of report.warnings) log.warn(warning);
  } catch (error) {
    log.error({ err: error }, 'this folder is a PaddleX workspace that could not be taken over');
  }
}
