/** Where an export may go. */
import { readdir, rm, stat } from 'node:fs/promises';
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

/** Removes what a process that is gone left unfinished in `saveDir`: hidden folders beside `name` that carry its id. */
export async function sweepUnfinished(saveDir: string, name: string): Promise<void> {
  for (const entry of await readdir(saveDir).catch(() => [])) {
    const pid = entry.startsWith(`.${name}.`) ? /^(\d+)[.-].*tmp$/.exec(entry.slice(name.length + 2))?.[1] : undefined;
    if (pid === undefined || isAlive(Number(pid))) continue;
    await rm(join(saveDir, entry), { recursive: true, force: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
