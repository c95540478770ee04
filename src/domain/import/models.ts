/** Saved pretrained models and exported models of an old workspace. */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { ExportedRecord, PretrainedRecord } from '../records.js';
import { localTime } from '../time.js';
import { asText, type ImportContext, readType } from './context.js';

import type { ExportedMessage, PretrainedMessage } from './proto.js';
import { readStatus, savedModelStatus } from './status-files.js';

/** What PaddleX copies beside a model: parameters, statistics, evaluation. */
async function companions(context: ImportContext, folder: string) {
  const params = await context.pickle(join(folder, 'params.pkl'), 'params');
  const statis = await context.pickle(join(folder, 'statis.pkl'), 'statis');
  const report = await context.pickle(join(folder, 'eval_res.pkl'), 'eval_res');
  const count = (key: string): number => (Array.isArray(statis?.[key]) ? (statis[key] as unknown[]).length : 0);
  return {
    dataset_attr:
      statis === undefined
        ? {}
        : {
            name: asText(statis.name),
            desc: asText(statis.desc),
            labels: Array.isArray(statis.labels) ? statis.labels : [],
            train_num: count('train_files'),
            val_num: count('val_files'),
            test_num: count('test_files'),
          },
    task_params: params ?? {},
    eval_result: report ?? null,
  };
}

function common(message: PretrainedMessage) {
  return {
    id: message.id,
    name: message.name,
    model: message.model,
    pid: message.pid,
    tid: message.tid,
    create_time: message.create_time || localTime(new Date()),
  };
}

export async function importPretrained(
  context: ImportContext,
  message: PretrainedMessage,
): Promise<PretrainedRecord | undefined> {
  const type = readType(message.type);
  const place = type && (await context.locator.folder(message.path, `pretrain/${message.id}`));
  if (type === undefined || place === undefined) {
    const why =
      type === undefined ? `has the unknown type "${message.type}"` : `lies outside the workspace (${message.path})`;
    context.warn(`Pretrained model ${message.id} ${why} and is left out.`);
    return undefined;
  }
  return {
    ...common(message),
    type: type.type,
    path: place.path,
    ...savedModelStatus(await readStatus(place.path), place.exists),
    source: '',
    ...(await companions(context, place.path)),
  };
}

/** Exported models live where the client wanted them, so their path may be anywhere; it is only shown. */
export async function importExported(
  context: ImportContext,
  message: ExportedMessage,
): Promise<ExportedRecord | undefined> {
  const type = readType(message.type);
  if (type === undefined) {
    context.warn(`Exported model ${message.id} has the unknown type "${message.type}" and is left out.`);
    return undefined;
  }
  const inside = await context.locator.folder(message.path, '');
  const path = inside?.path ?? context.locator.rewrite(message.path);
  const exists = await stat(path).then(
    (stats) => stats.isDirectory(),
    () => false,
  );
  if (!exists) context.warn(`The folder of exported model ${message.id} is gone (${path}).`);
  return {
    ...common(message),
    type: type.type,
    path,
    exported_type: message.exported_type,
    // Outside the workspace nothing is read: the path is the record's word only.
    ...(inside?.exists ? await companions(context, path) : { dataset_attr: {}, task_params: {}, eval_result: null }),
  };
}
