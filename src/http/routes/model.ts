/** `/model`: saved and exported models. */
import { z } from 'zod';
import type { ModelsApi } from '../../domain/contracts.js';
import { invalidArgument } from '../../domain/errors.js';
import type { ExportedRecord, PretrainedRecord } from '../../domain/records.js';
import type { Repository } from '../../domain/repository.js';
import { defineRoute, type Route } from '../route.js';
import { AnswerCache, given, measured, pid, tid, typeName } from './shapes.js';

export interface ModelServices {
  readonly models: ModelsApi;
  readonly store: Pick<Repository, 'revision'>;
}

const kind = z.enum(['pretrained', 'exported']).describe('pretrained: saved checkpoints; exported: inference models');
const model = z.object({
  id: z.string(),
  name: z.string(),
  model: z.string(),
  type: typeName,
  pid: z.string(),
  tid: z.string(),
  create_time: z.string(),
  path: z.string(),
});

const shape = ({ id, name, model, type, pid, tid, create_time, path }: PretrainedRecord | ExportedRecord) => ({
  id,
  name,
  model,
  type,
  pid,
  tid,
  create_time,
  path,
});

const anything = z.union([z.record(z.string(), z.unknown()), z.string()]);

export function modelRoutes({ models, store }: ModelServices): Route[] {
  const cache = new AnswerCache();
  return [
    defineRoute({
      method: 'get',
      path: '/model',
      summary: 'All models of a kind, or where one comes from',
      tag: 'model',
      input: z.object({
        type: kind.nullish(),
        mid: z.string().min(1).nullish().describe('One model, e.g. PM0001 or EM0001; type wins'),
        as_text: z.boolean().nullish().describe('task_params and eval_result as JSON text'),
      }),
      output: z.object({
        pretrained_models: z.array(model).optional(),
        exported_models: z.array(model.extend({ exported_type: z.int() })).optional(),
        dataset_attr: z.record(z.string(), z.unknown()).optional(),
        task_params: anything.optional(),
        eval_result: anything.nullish(),
        measured: measured.optional().describe('Of an exported model: what ONNX Runtime measured'),
      }),
      async handle(input) {
        if (input.type === 'pretrained') {
          const build = () => ({ pretrained_models: models.pretrained().map(shape) });
          return cache.get('pretrained', store.revision('pretrained'), build);
        }
        if (input.type === 'exported') {
          return cache.get('exported', store.revision('exported', 'task', 'sidejob'), () => ({
            exported_models: models
              .exported()
              .map((record) => ({ ...shape(record), exported_type: record.exported_type })),
          }));
        }
        if (input.mid == null)
          throw invalidArgument('type', 'Either type (pretrained or exported) or mid is required.');
        const record = models.get(input.mid);
        const { dataset_attr, task_params, eval_result } = record;
        const text = (value: unknown): unknown =>
          input.as_text === true && value !== null ? JSON.stringify(value) : value;
        return {
          dataset_attr,
          task_params: text(task_params) as Record<string, unknown>,
          eval_result: text(eval_result ?? null) as Record<string, unknown> | null,
          ...('measured' in record && record.measured !== undefined ? { measured: record.measured } : {}),
        };
      },
    }),
    defineRoute({
      method: 'post',
      path: '/model',
      summary: 'Saves a checkpoint as a pretrained model, or registers an exported model',
      tag: 'model',
      input: z.object({
        pid,
        tid,
        name: z.string(),
        type: kind,
        source_path: z.string().nullish().describe('For pretrained: folder of a saved epoch or best model'),
        path: z.string().nullish().describe('For exported: folder of the export; need not exist yet'),
        exported_type: z.int().min(0).max(5).nullish().describe('For exported: 0 inference, 1 lite'),
        eval_results: z.record(z.string(), z.unknown()).nullish().describe('For pretrained: its evaluation'),
      }),
      output: z.object({ pmid: z.string().optional(), emid: z.string().optional() }),
      async handle({ type, pid, tid, name, source_path, path, exported_type, eval_results }) {
        const optional = given({ source_path, path, exported_type, eval_results });
        if (type === 'pretrained') return { pmid: (await models.addPretrained({ pid, tid, name, ...optional })).id };
        return { emid: (await models.addExported({ pid, tid, name, ...optional })).id };
      },
    }),
    defineRoute({
      method: 'delete',
      path: '/model',
      summary: 'Deletes a model, and its folder where the server made it',
      tag: 'model',
      input: z.object({
        type: kind,
        pmid: z.string().min(1).nullish().describe('For pretrained'),
        emid: z.string().min(1).nullish().describe('For exported'),
      }),
      output: z.object({}),
      async handle({ type, pmid, emid }) {
        if (type === 'pretrained') {
          if (pmid == null) throw invalidArgument('pmid', 'pmid is missing.');
          await models.deletePretrained(pmid);
        } else {
          if (emid == null) throw invalidArgument('emid', 'emid is missing.');
          await models.deleteExported(emid);
        }
        return {};
      },
    }),
  ];
}
