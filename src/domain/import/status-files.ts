/** The states of PaddleX: files named like an enumeration value; the newest one counts. */
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import {
  DatasetStatus,
  DownloadStatus,
  PredictStatus,
  PretrainedModelStatus,
  PruneStatus,
  TaskStatus,
} from '../enums.js';

export interface FoundStatus {
  name: string;
  /** Content without the line end. */
  message: string;
  /** Of its last change. */
  at: Date;
}

const NAMES = new Set(
  [DatasetStatus, TaskStatus, DownloadStatus, PredictStatus, PruneStatus, PretrainedModelStatus].flatMap(Object.keys),
);
const MAX_MESSAGE = 64 * 1024;

/** The status of a folder, or `undefined` when it has none. */
export async function readStatus(folder: string): Promise<FoundStatus | undefined> {
  const names = (await readdir(folder).catch(() => [] as string[])).filter((name) => NAMES.has(name));
  const found = await Promise.all(
    names.map(async (name) => ({
      name,
      at: await stat(join(folder, name)).then(
        (stats) => stats.mtime,
        () => undefined,
      ),
    })),
  );
  let newest: { name: string; at: Date } | undefined;
  for (const { name, at } of found)
    if (at !== undefined && (newest === undefined || at > newest.at)) newest = { name, at };
  if (newest === undefined) return undefined;
  const content = await readFile(join(folder, newest.name)).catch(() => Buffer.alloc(0));
  return { ...newest, message: content.subarray(0, MAX_MESSAGE).toString('utf8').trim() };
}

/** Whether a process that looks like a PaddleX worker (a Python process) has the pid in a status file. */
export async function workerLives(message: string): Promise<boolean> {
  const pid = /^\d{1,9}/.exec(message)?.[0];
  if (pid === undefined) return false;
  const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
  return /python|paddlex/i.test(command);
}

const INTERRUPTED = 'The PaddleX server ended while this was running.';

interface Mapped<T> {
  status: T;
  message: string;
}

/** Unfinished imports become failed ones with a reason: their source folder is not recorded. */
export function datasetStatus(found: FoundStatus | undefined): Mapped<DatasetStatus> {
  if (found === undefined) return { status: DatasetStatus.XEMPTY, message: '' };
  if (found.name === 'XCHECKING')
    return { status: DatasetStatus.XCHECKFAIL, message: `${INTERRUPTED} Import the dataset again.` };
  if (found.name === 'XCOPYING')
    return { status: DatasetStatus.XCOPYFAIL, message: `${INTERRUPTED} Import the dataset again.` };
  const status = DatasetStatus[found.name as keyof typeof DatasetStatus];
  return status === undefined ? { status: DatasetStatus.XEMPTY, message: '' } : { status, message: found.message };
}

/** What is on disk of a task, which decides the state after an interrupted one. */
export interface TaskEvidence {
  bestModel: boolean;
  evaluated: boolean;
  exported: boolean;
}

/** The state a task returns to when nothing runs. */
export function settledStatus(evidence: TaskEvidence): TaskStatus {
  if (evidence.exported) return TaskStatus.XEXPORTED;
  if (evidence.evaluated) return TaskStatus.XEVALUATED;
  return evidence.bestModel ? TaskStatus.XTRAINDONE : TaskStatus.XINIT;
}

export function taskStatus(found: FoundStatus | undefined, evidence: TaskEvidence): Mapped<TaskStatus> {
  const settled = settledStatus(evidence);
  switch (found?.name) {
    case undefined:
      return { status: settled, message: 'No state of this task was recorded.' };
    case 'XTRAINING':
    case 'XPRUNETRAIN':
      return { status: TaskStatus.XTRAINEXIT, message: `${INTERRUPTED} Its checkpoints are kept.` };
    case 'XINIT':
    case 'XTRAINDONE':
    case 'XEVALUATED':
    case 'XEXPORTED':
    case 'XTRAINEXIT':
    case 'XTRAINFAIL':
    case 'XDOWNLOADFAIL':
      return { status: TaskStatus[found.name as keyof typeof TaskStatus], message: found.message };
    default:
      // Exporting, pruning and the values that belong to side jobs: PaddleX leaves some of them standing for ever.
      return { status: settled, message: '' };
  }
}

const SIDE_JOB_STATUS = {
  evaluate: {
    XEVALUATING: [TaskStatus.XEVALUATEFAIL],
    XEVALUATED: TaskStatus.XEVALUATED,
    XEVALUATEFAIL: TaskStatus.XEVALUATEFAIL,
  },
  predict: { XPRESTART: [PredictStatus.XPREFAIL], XPREDONE: PredictStatus.XPREDONE, XPREFAIL: PredictStatus.XPREFAIL },
  export: {
    XEXPORTING: [TaskStatus.XEXPORTFAIL],
    XEXPORTED: TaskStatus.XEXPORTED,
    XEXPORTFAIL: TaskStatus.XEXPORTFAIL,
  },
  prune: {
    XSPRUNESTART: [PruneStatus.XSPRUNEFAIL],
    XSPRUNEING: [PruneStatus.XSPRUNEFAIL],
    XSPRUNEDONE: PruneStatus.XSPRUNEDONE,
    XSPRUNEFAIL: PruneStatus.XSPRUNEFAIL,
    XSPRUNEEXIT: PruneStatus.XSPRUNEEXIT,
  },
} as const;

/** State of an evaluation, prediction, export or pruning analysis; a running one becomes a failed one with a reason. */
export function sideJobStatus(
  job: keyof typeof SIDE_JOB_STATUS,
  found: FoundStatus | undefined,
): Mapped<number> | undefined {
  if (found === undefined) return undefined;
  const mapped = (SIDE_JOB_STATUS[job] as Record<string, number | readonly number[]>)[found.name];
  if (mapped === undefined) return undefined;
  if (typeof mapped === 'number') return { status: mapped, message: found.message };
  return { status: mapped[0] as number, message: INTERRUPTED };
}

export function savedModelStatus(found: FoundStatus | undefined, hasFiles: boolean): Mapped<PretrainedModelStatus> {
  if (found?.name === 'XPSAVEDONE' || (found === undefined && hasFiles))
    return { status: PretrainedModelStatus.XPSAVEDONE, message: '' };
  const message = found?.name === 'XPSAVEFAIL' ? found.message : INTERRUPTED;
  return { status: PretrainedModelStatus.XPSAVEFAIL, message };
}
