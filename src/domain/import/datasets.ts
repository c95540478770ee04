/** Datasets of an old workspace. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { writeFileAtomic } from '../atomic-file.js';
import type { DatasetDetails } from '../contracts.js';
import { DatasetStatus, type ProjectType } from '../enums.js';
import type { DatasetRecord } from '../records.js';
import { localTime } from '../time.js';
import { type ImportContext, isFile, readType } from './context.js';

import { completeDetails, countsOf, rebuildClassification } from './details.js';
import type { DatasetMessage, ProjectMessage } from './proto.js';
import { datasetStatus, readStatus } from './status-files.js';

/** The record of one dataset; `undefined` (with a warning) when it cannot belong to this workspace. */
export async function importDataset(
  context: ImportContext,
  message: DatasetMessage,
): Promise<DatasetRecord | undefined> {
  const type = readType(message.type);
  if (type === undefined) {
    context.warn(`Dataset ${message.id} has the unknown type "${message.type}" and is left out.`);
    return undefined;
  }
  const place = await context.locator.folder(message.path, `datasets/${message.id}`);
  if (place === undefined) {
    context.warn(`Dataset ${message.id} lies outside the workspace (${message.path}) and is left out.`);
    return undefined;
  }
  const found = place.exists ? await readStatus(place.path) : undefined;
  let state = datasetStatus(found);
  let details: DatasetDetails | undefined;
  if (!place.exists) {
    state = { status: DatasetStatus.XCHECKFAIL, message: 'The folder of this dataset is gone. Import it again.' };
    context.warn(`The folder of dataset ${message.id} is gone.`);
  } else if (
    state.status === DatasetStatus.XCOPYDONE ||
    state.status === DatasetStatus.XSPLITED ||
    found === undefined
  ) {
    details = await readDetails(context, place.path, type);
    if (details !== undefined) {
      state = {
        status: details.train_files.length > 0 ? DatasetStatus.XSPLITED : DatasetStatus.XCOPYDONE,
        message: '',
      };
    } else if (found !== undefined) {
      state = {
        status: DatasetStatus.XCHECKFAIL,
        message: 'The statistics of this dataset are lost. Import it again.',
      };
      context.warn(`The statistics of dataset ${message.id} are lost; it must be imported again.`);
    }
  }
  return {
    id: message.id,
    name: message.name || message.id,
    desc: message.desc,
    ...type,
    path: place.path,
    create_time: message.create_time || localTime(new Date()),
    ...state,
    source: null,
    demo: false,
    counts: details === undefined ? null : countsOf(details),
    content: 1,
  };
}

/** Reads the statistics and leaves them as `statis.json` beside the pickle, which stays for the old server. */
async function readDetails(
  context: ImportContext,
  folder: string,
  { type, remote }: { type: ProjectType; remote?: true },
): Promise<DatasetDetails | undefined> {
  const pickled = completeDetails(await context.pickle(join(folder, 'statis.pkl'), 'statis'));
  const details =
    pickled ??
    (type === 'classification'
      ? await rebuildClassification(folder)
      : completeDetails(await context.readAgain(folder, type, remote === true)));
  if (details === undefined) return undefined;
  const target = join(folder, 'statis.json');
  if (!(await isFile(target))) await writeFileAtomic(target, JSON.stringify(details));
  return details;
}

/**
 * Folders `datasets/D…` without a record that a project is bound to. PaddleX writes no recovery file for
 * new datasets, so a workspace rebuilt from its folders would lose them. Their type is the project's.
 */
export async function orphanDatasets(
  root: string,
  known: ReadonlySet<string>,
  projects: readonly ProjectMessage[],
): Promise<DatasetMessage[]> {
  const folders = new Set(await readdir(join(root, 'datasets')).catch(() => [] as string[]));
  const orphans = new Map<string, DatasetMessage>();
  for (const project of projects) {
    const id = project.did;
    if (!/^D\d+$/.test(id) || known.has(id) || !folders.has(id) || orphans.has(id)) continue;
    orphans.set(id, {
      id,
      name: id,
      desc: '',
      type: project.type,
      path: join(root, 'datasets', id),
      create_time: project.create_time,
    });
  }
  return [...orphans.values()];
}
