/** `/project/task/evaluate/file`: the evaluation as a spreadsheet, or the stored report itself. */
import { basename, dirname } from 'node:path';
import { z } from 'zod';
import type { JobsApi, TasksApi } from '../../domain/contracts.js';
import { TaskStatus } from '../../domain/enums.js';
import { invalidArgument, notFound } from '../../domain/errors.js';
import { writeReport } from '../../domain/report/index.js';
import { JSON_TYPE } from '../envelope.js';
import { defineRoute, RawAnswer, type Route } from '../route.js';

export interface EvaluateFileServices {
  readonly jobs: Pick<JobsApi, 'get' | 'report'>;
  readonly tasks: Pick<TasksApi, 'get' | 'list'>;
}

/** Names of stored reports, PaddleX's own included: clients may have kept such a path. */
const REPORTS = new Set(['eval_res.json', 'eval_res.pkl']);

export function evaluateFileRoutes({ jobs, tasks }: EvaluateFileServices): Route[] {
  const evaluated = async (tid: string): Promise<Record<string, unknown> | null> => {
    if (jobs.get(tid, 'evaluate')?.status !== TaskStatus.XEVALUATED) return null;
    return (await jobs.report(tid)).report;
  };
  return [
    defineRoute({
      method: 'get',
      path: '/project/task/evaluate/file',
      summary: 'Writes the evaluation of a task as a spreadsheet; with `path`, answers a stored report',
      tag: 'evaluation',
      input: z.object({
        tid: z.string().min(1).optional().describe('Task whose evaluation is written'),
        topk: z.int().min(1).nullish().describe('k of the heading, when the report does not say'),
        path: z.string().min(1).optional().describe('A stored report, as `GET /project/task/evaluate` names it'),
      }),
      output: z.object({ path: z.string().nullable(), message: z.string() }),
      async handle({ tid, topk, path }) {
        if (tid !== undefined) {
          const task = tasks.get(tid);
          const report = await evaluated(tid);
          if (report === null)
            return { status: -1 as const, path: null, message: `${tid} has no evaluation yet. Evaluate it first.` };
          const file = await writeReport(task.path, tid, report, topk ? { topk } : {});
          return { path: file, message: `The evaluation of ${tid} was written as a spreadsheet.` };
        }
        if (path === undefined) throw invalidArgument('tid', 'Either tid or path is required.');
        // Only what a task stored is answered, found by the task and not by opening the path.
        const owner = REPORTS.has(basename(path))
          ? tasks.list().find((task) => task.path === dirname(path))
          : undefined;
        const report = owner === undefined ? null : await evaluated(owner.id);
        if (report === null) throw notFound('evaluation report at', path.slice(0, 200));
        return new RawAnswer(JSON.stringify(report), JSON_TYPE);
      },
    }),
  ];
}
