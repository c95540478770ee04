/** The evaluation report as a spreadsheet. */
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { OarlockError } from '../errors.js';
import type { ReportOptions } from './layout.js';
import type { WriteOrder } from './write-worker.js';

export type { ReportOptions } from './layout.js';

/** Where the report of a task lies. The content is xlsx; the name is the one that PaddleX clients know. */
export const reportPath = (taskDir: string, tid: string): string => join(taskDir, `report-task${tid}.xls`);

const HEAP_MB = 512;
const LIMIT_MS = 120_000;

/**
 * Writes `<taskDir>/report-task<tid>.xls` from an evaluation report (sheet 评估报告, a block per matrix or table) and returns its path.
 * The file is replaced as a whole.
 * @throws OarlockError `resource_exhausted` when the disk is full or the report too large.
 */
export async function writeReport(
  taskDir: string,
  tid: string,
  report: Record<string, unknown>,
  options: ReportOptions = {},
): Promise<string> {
  const path = reportPath(taskDir, tid);
  const order: WriteOrder = { path, report, options };
  const worker = new Worker(new URL('./write-worker.js', import.meta.url), {
    workerData: { order },
    resourceLimits: { maxOldGenerationSizeMb: HEAP_MB },
  });
  const timer = setTimeout(() => void worker.terminate(), LIMIT_MS);
  try {
    await new Promise<void>((done, fail) => {
      worker.once('error', fail);
      worker.once('exit', (code) => (code === 0 ? done() : fail(new Error(`the writer ended with ${code}`))));
    });
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOSPC' || code === 'EDQUOT' || code === 'ERR_WORKER_OUT_OF_MEMORY') {
      const what = code === 'ERR_WORKER_OUT_OF_MEMORY' ? 'there is not enough memory' : 'the disk is full';
      throw new OarlockError('resource_exhausted', `The spreadsheet of ${tid} could not be written: ${what}.`, {
        cause: error,
      });
    }
    throw error;
  } finally {
    clearTimeout(timer);
  }
  return path;
}
