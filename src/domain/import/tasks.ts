/** Tasks of an old workspace: parameters, state, curves, side jobs. */
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { writeFileAtomic } from '../atomic-file.js';
import { PredictStatus, type ProjectType, PruneStatus, TaskStatus } from '../enums.js';
import { readStored } from '../params/index.js';
import type { CurvePoint, MetricValues, SideJob, SideJobRecord, TaskRecord, TrainingRecord } from '../records.js';
import { localTime } from '../time.js';
import { type ImportContext, isFile } from './context.js';
import type { TaskMessage } from './proto.js';
import { repairReport } from './report.js';
import { readStatus, sideJobStatus, type TaskEvidence, taskStatus, workerLives } from './status-files.js';
import { readTrainLog, type TrainHistory } from './train-log.js';

export interface ImportedTask {
  task: TaskRecord;
  training: TrainingRecord | undefined;
  sideJobs: SideJobRecord[];
  points: CurvePoint[];
}

/** Where each side job keeps its status file. */
const FOLDERS: Readonly<Record<SideJob, string>> = {
  evaluate: 'logs/evaluate',
  predict: 'logs/predict',
  export: 'logs/export',
  prune: 'prune',
};

/** One task with all that belongs to it; `undefined` (with a warning) when it cannot belong to this workspace. */
export async function importTask(
  context: ImportContext,
  message: TaskMessage,
  type: ProjectType,
): Promise<ImportedTask | undefined> {
  const place = await context.locator.folder(message.path, `projects/${message.pid}/${message.id}`);
  if (place === undefined) {
    context.warn(`Task ${message.id} lies outside the workspace (${message.path}) and is left out.`);
    return undefined;
  }
  if (!place.exists) context.warn(`The folder of task ${message.id} is gone; only its record remains.`);
  const folder = place.path;
  const pickled = await context.pickle(join(folder, 'params.pkl'), 'params');
  const stored = readStored(type, asObject(pickled?.train) ?? {});
  if (pickled === undefined && place.exists)
    context.warn(`The parameters of task ${message.id} are lost; defaults take their place.`);
  for (const warning of stored.warnings) context.warn(`Task ${message.id}: ${warning}`);
  const sideJobs = await importSideJobs(context, message.id, folder);
  const evidence: TaskEvidence = {
    bestModel: await isFile(join(folder, 'output/best_model/.success')),
    evaluated: sideJobs.some((job) => job.job === 'evaluate' && job.status === TaskStatus.XEVALUATED),
    exported: sideJobs.some((job) => job.job === 'export' && job.status === TaskStatus.XEXPORTED),
  };
  const found = await readStatus(folder);
  if (/^(XTRAINING|XPRUNETRAIN)$/.test(found?.name ?? '') && (await workerLives(found?.message ?? ''))) {
    context.warn(
      `Process ${found?.message} may still train task ${message.id} for PaddleX: stop the old server before working here.`,
    );
  }
  const state = taskStatus(found, evidence);
  const history = await readTrainLog(join(folder, 'out.log'));
  const task: TaskRecord = {
    id: message.id,
    name: message.name,
    desc: message.desc || text(pickled?.desc),
    pid: message.pid,
    path: folder,
    create_time: message.create_time || localTime(new Date()),
    parent_id: message.parent_id || text(pickled?.parent_id),
    ...state,
    settled: state.status,
    params: stored.train,
  };
  return { task, training: await trainingRecord(task, history), sideJobs, points: history.points };
}

const asObject = (value: unknown): Record<string, unknown> | undefined =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : undefined;
const text = (value: unknown): string => (typeof value === 'string' ? value : '');

async function trainingRecord(task: TaskRecord, history: TrainHistory): Promise<TrainingRecord | undefined> {
  const saved = await savedEpochs(task.path);
  if (history.train === null && history.eval === null && saved.length === 0) return undefined;
  const epochs: Record<string, MetricValues> = {};
  for (const epoch of saved) {
    const metrics = history.evals.get(epoch);
    if (metrics !== undefined) epochs[String(epoch)] = metrics;
  }
  const best = await bestModel(task.path, history);
  return {
    id: task.id,
    mode: 'fresh',
    resumed_epoch: null,
    queued: false,
    device: null,
    precision: null,
    num_epochs: history.numEpochs || (task.params.num_epochs as number),
    train_metrics: history.train,
    eval_metrics: history.eval,
    eta: null,
    steps: history.steps,
    images_per_second: null,
    data_wait_seconds: null,
    download_status: null,
    train_error: history.error,
    train_stage: history.complete || task.status === TaskStatus.XTRAINDONE ? 'Train Complete' : null,
    running_seconds: history.seconds,
    epochs,
    best_epoch: best?.epoch ?? null,
    best_metrics: best?.metrics ?? null,
    notes: ['Trained by PaddleX; imported from its workspace.'],
  };
}

/** Epochs whose checkpoint is complete, ascending. */
async function savedEpochs(folder: string): Promise<number[]> {
  const names = await readdir(join(folder, 'output')).catch(() => [] as string[]);
  const epochs = names.flatMap((name) => (/^epoch_\d{1,9}$/.test(name) ? [Number(name.slice(6))] : []));
  const whole = await Promise.all(epochs.map((epoch) => isFile(join(folder, 'output', `epoch_${epoch}`, '.success'))));
  return epochs.filter((_, at) => whole[at]).sort((a, b) => a - b);
}

/**
 * The best epoch: what the log says last, else `model.yml` of the best model. That file is YAML with Python tags;
 * only the plain lines of two keys are looked at.
 */
async function bestModel(
  folder: string,
  history: TrainHistory,
): Promise<{ epoch: number; metrics: MetricValues } | null> {
  if (!(await isFile(join(folder, 'output/best_model/.success')))) return null;
  if (history.best !== null)
    return { epoch: history.best.epoch, metrics: history.evals.get(history.best.epoch) ?? history.best.metrics };
  const yaml = await readFile(join(folder, 'output/best_model/model.yml'), 'utf8').catch(() => '');
  const epoch = /^\s*(?:best_model_epoch|completed_epochs): (\d+)\s*$/m.exec(yaml)?.[1];
  if (epoch === undefined) return null;
  const metric = /^\s*eval_metrics:\s*\n\s+(\w+): ([-\d.e+]+)\s*$/m.exec(yaml);
  return { epoch: Number(epoch), metrics: metric === null ? {} : { [metric[1] as string]: Number(metric[2]) } };
}

async function importSideJobs(context: ImportContext, tid: string, folder: string): Promise<SideJobRecord[]> {
  const records: SideJobRecord[] = [];
  for (const job of Object.keys(FOLDERS) as SideJob[]) {
    const home = join(folder, FOLDERS[job]);
    const found = await readStatus(home);
    const state = sideJobStatus(job, found);
    if (found === undefined || state === undefined) continue;
    let result: unknown = null;
    if (job === 'evaluate' && state.status === TaskStatus.XEVALUATED) {
      result = (await readReport(context, folder)) ?? null;
      if (result === null) {
        state.status = TaskStatus.XEVALUATEFAIL;
        state.message = 'The evaluation report is lost; evaluate again.';
      }
    }
    if (job === 'prune' && state.status === PruneStatus.XSPRUNEDONE) result = await readSensitivities(context, home);
    const pictures = job === 'predict' ? await countPictures(join(folder, 'visualized_test_results')) : 0;
    const total = Number((await readFile(join(home, 'total_num'), 'utf8').catch(() => '')).trim());
    const complete = job === 'predict' && state.status === PredictStatus.XPREDONE;
    records.push({
      id: `${tid}/${job}`,
      tid,
      job,
      ...state,
      started: localTime(found.at),
      done: pictures,
      total: complete ? pictures : Number.isSafeInteger(total) && total > 0 ? total : pictures,
      args: {},
      result,
    });
  }
  return records;
}

const countPictures = async (folder: string): Promise<number> =>
  (await readdir(folder).catch(() => [] as string[])).filter((name) => /\.png$/i.test(name)).length;

/** The report, also left as `eval_res.json` beside the pickle. */
async function readReport(context: ImportContext, folder: string): Promise<Record<string, unknown> | undefined> {
  const pickled = await context.pickle(join(folder, 'eval_res.pkl'), 'eval_res');
  if (pickled === undefined) return undefined;
  const report = repairReport(pickled);
  const target = join(folder, 'eval_res.json');
  const there = await stat(target).catch(() => undefined);
  if (there === undefined) await writeFileAtomic(target, JSON.stringify(report));
  return report;
}

/** Result of a pruning analysis: loss by layer and ratio, and where the older build left it the curve of ratio versus loss. */
async function readSensitivities(context: ImportContext, home: string): Promise<Record<string, unknown> | null> {
  const curve = await context.pickle(join(home, 'sensitivities_xy.pkl'), 'sensitivities_xy');
  const status = await context.pickle(join(home, 'model.sensi.data'), 'sensi_data');
  const plain =
    status === undefined ? await context.pickle(join(home, 'sensitivities.data'), 'sensitivities_xy') : undefined;
  const layers = asObject(status?.sensitivies) ?? plain ?? null; // the reference's own spelling
  return curve === undefined && layers === null
    ? null
    : { sensitivities_loss_img: curve ?? null, sensitivities: layers };
}
