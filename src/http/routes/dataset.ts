/** `/dataset`: creation, import, split, details, deletion. */
import { Readable } from 'node:stream';
import { z } from 'zod';
import type { SourceFormat } from '../../compute/jobs.gen.js';
import type { DatasetsApi } from '../../domain/contracts.js';
import type { DatasetRecord } from '../../domain/records.js';
import type { Repository } from '../../domain/repository.js';
import { JSON_TYPE } from '../envelope.js';
import { defineRoute, RawAnswer, type Route } from '../route.js';
import { AnswerCache, desc, did, force, jsonAnswer, name, readType, typeArg, typeName } from './shapes.js';

export interface DatasetServices {
  readonly datasets: DatasetsApi;
  readonly store: Pick<Repository, 'revision'>;
}

const SOURCE_FORMATS = ['native', 'labelme', 'easydata', 'jingling', 'coco', 'yolo'] as const satisfies SourceFormat[];

const message = z
  .union([z.string(), z.object({ pid: z.int(), percent: z.number() })])
  .describe('Text; while copying an object with the share that is done');
const attr = z.object({
  type: typeName,
  id: z.string(),
  name: z.string(),
  path: z.string(),
  desc: z.string(),
  create_time: z.string(),
  remote: z.boolean().optional(),
});
const status = z.int().describe('0 empty, 1 checking, 2 check failed, 3 copying, 4 imported, 5 copy failed, 6 split');

const shape = ({ id, name, desc, type, path, create_time, remote }: DatasetRecord) => ({
  type,
  id,
  name,
  path,
  desc,
  create_time,
  ...(remote ? { remote } : {}),
});

/** Longer details are sent in pieces instead of being kept a second time with the envelope around them. */
const WRAPPED_BYTES = 2 ** 20;
const HEAD = Buffer.from('{"status":1,"details":');
const TAIL = Buffer.from('}');
const NONE = Buffer.from('null');

export function datasetRoutes({ datasets, store }: DatasetServices): Route[] {
  const cache = new AnswerCache();
  /** Wrapped texts of details, as long as the texts themselves are kept. */
  const wrapped = new WeakMap<Buffer, Buffer>();
  return [
    defineRoute({
      method: 'get',
      path: '/dataset',
      summary: 'One dataset with its state, or all',
      tag: 'dataset',
      input: z.object({ did: did.nullish() }),
      output: z.object({
        id: z.string().optional(),
        dataset_status: status.optional(),
        message: message.optional(),
        attr: attr.extend({ pids: z.array(z.string()) }).optional(),
        datasets: z
          .array(z.object({ id: z.string(), attr: attr.extend({ dataset_status: status, message }) }))
          .optional(),
      }),
      async handle(input) {
        if (input.did == null) {
          return cache.get('', `${store.revision('dataset')}/${datasets.progressRevision()}`, () => ({
            datasets: datasets.list().map((record) => ({
              id: record.id,
              attr: { ...shape(record), dataset_status: record.status, message: datasets.message(record) },
            })),
          }));
        }
        const record = datasets.get(input.did);
        return {
          id: record.id,
          dataset_status: record.status,
          message: datasets.message(record),
          attr: { ...shape(record), pids: datasets.projectsOf(record.id) },
        };
      },
    }),
    defineRoute({
      method: 'post',
      path: '/dataset',
      summary: 'Creates an empty dataset',
      tag: 'dataset',
      input: z.object({ name, desc, dataset_type: typeArg }),
      output: z.object({ did: z.string(), id: z.string().describe('The same as did') }),
      async handle(input) {
        const type = readType('dataset_type', input.dataset_type);
        const { id } = await datasets.create({ name: input.name, desc: input.desc ?? '', ...type });
        return { did: id, id };
      },
    }),
    defineRoute({
      method: 'put',
      path: '/dataset',
      summary: 'Imports a folder of the server into a dataset; ask GET /dataset for its progress',
      tag: 'dataset',
      input: z.object({
        did,
        path: z.string().min(1).describe('Folder on the server, inside the workspace or a data root; never changed'),
        format: z
          .enum(SOURCE_FORMATS)
          .nullish()
          .describe(
            'What the folder holds: native (the format of the type itself) or annotations of another tool, which are converted; left out: recognised',
          ),
        demo: z.unknown().optional().describe('Part of a demo, so that stopping the demo cancels it'),
      }),
      output: z.object({}),
      async handle(input) {
        await datasets.import(input.did, input.path, {
          demo: Boolean(input.demo),
          ...(input.format ? { format: input.format } : {}),
        });
        return {};
      },
    }),
    defineRoute({
      method: 'delete',
      path: '/dataset',
      summary: 'Deletes a dataset that no project uses',
      tag: 'dataset',
      input: z.object({ did, force }),
      output: z.object({}),
      async handle(input) {
        await datasets.delete(input.did, { force: input.force === true });
        return {};
      },
    }),
    defineRoute({
      method: 'put',
      path: '/dataset/split',
      summary: 'Splits an imported dataset into training, validation and test pictures',
      tag: 'dataset',
      input: z.object({
        did,
        val_split: z.number().describe('Share for validation, e.g. 0.2'),
        test_split: z.number().nullish().describe('Share for testing; default 0'),
        seed: z.int().min(0).nullish().describe('The same seed gives the same split'),
      }),
      output: z.object({}),
      async handle(input) {
        await datasets.split(input.did, input.val_split, input.test_split ?? 0, input.seed ?? undefined);
        return {};
      },
    }),
    defineRoute({
      method: 'get',
      path: '/dataset/details',
      summary: 'Labels, files and split of a dataset; null unless it is imported',
      tag: 'dataset',
      input: z.object({ did }),
      output: z.object({
        details: z
          .object({
            fields: z.array(z.string()),
            labels: z.array(z.string()),
            file_info: z.record(z.string(), z.string()),
            label_info: z.record(z.string(), z.array(z.string())),
            train_files: z.array(z.string()),
            val_files: z.array(z.string()),
            test_files: z.array(z.string()),
            class_train_file_list: z.record(z.string(), z.array(z.string())),
            class_val_file_list: z.record(z.string(), z.array(z.string())),
            class_test_file_list: z.record(z.string(), z.array(z.string())),
          })
          .nullable(),
      }),
      async handle(input) {
        const json = (await datasets.detailsJson(input.did)) ?? NONE;
        if (json.length > WRAPPED_BYTES) {
          const length = String(HEAD.length + json.length + TAIL.length);
          return new RawAnswer(Readable.from([HEAD, json, TAIL]), JSON_TYPE, 200, { 'content-length': length });
        }
        let body = wrapped.get(json);
        if (body === undefined) {
          body = Buffer.concat([HEAD, json, TAIL]);
          wrapped.set(json, body);
        }
        return jsonAnswer(body);
      },
    }),
  ];
}
