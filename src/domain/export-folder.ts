/** Where an export may go. */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { DomainContext } from './context.js';
import { invalidArgument } from './errors.js';
import type { TaskRecord } from './records.js';

/** The real path of `save_dir`; refuses files and the folders that the workspace needs for itself. */
export async function exportFolder({ paths, config }: DomainContext, task: TaskRecord, given: string): Promise<string> {
  const path = await paths.resolveNew(given, { field: 'save_dir' });
  const there = await stat(path).catch(() => undefined);
  if (there !== undefined && !there.isDirectory())
    throw invalidArgument('save_dir', `${given} is a file; save_dir must be a folder.`);
  const root = await paths.resolve(config.workspace);
  const taken = [
    root,
    join(root, 'datasets'),
    join(root, 'projects'),
    join(root, 'pretrain'),
    join(task.path, 'output'),
  ];
  if (
    taken.includes(path) ||
    path.startsWith(`${join(root, 'datasets')}/`) ||
    path.startsWith(`${join(task.path, 'output')}/`)
  ) {
    throw invalidArgument(
      'save_dir',
      'save_dir is a folder that the workspace needs for itself.',
      `Use for example ${join(task.path, 'export_model')}.`,
    );
  }
  return path;
}
