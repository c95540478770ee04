/** Which copy of the PaddleX workspace file to believe, and what to do when none is usable. */
import { readdir, readFile, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { OarlockError } from '../errors.js';
import { type DatasetMessage, decode, type ProjectMessage, type TaskMessage, type WorkspaceMessage } from './proto.js';

/** What was read, and from where. */
export interface FoundWorkspace {
  workspace: WorkspaceMessage;
  /** File name, or `info.pb` when the records were put together from the folders. */
  from: string;
  warnings: string[];
}

const FLAG = '.pb.success';
/** Real files stay far below; a larger one is no workspace file. */
const MAX_BYTES = 256 * 2 ** 20;
export const ID = /^(?:D|P|T|PM|EM)\d{1,9}$/;

const exists = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  );

/** Whether a folder was a workspace of PaddleX. */
export async function isPaddlexWorkspace(root: string): Promise<boolean> {
  const names = await readdir(root).catch(() => [] as string[]);
  return names.some((name) => /^workspace\.(newest|stable|bak)\.pb$/.test(name));
}

/**
 * Reads the workspace file: newest when its flag says that it is whole, then stable, bak, and newest again; the first that
 * parses and is not empty. Without any, the records are rebuilt from the `info.pb` of the folders.
 * @throws OarlockError `not_found` when the folder is no PaddleX workspace, `invalid_argument` when nothing in it is readable.
 */
export async function readWorkspace(root: string): Promise<FoundWorkspace> {
  const warnings: string[] = [];
  const infos = await infoFiles(root);
  const flagged = await exists(join(root, FLAG));
  const order = [...(flagged ? ['newest'] : []), 'stable', 'bak', ...(flagged ? [] : ['newest'])];
  let empty: FoundWorkspace | undefined;
  let seen = 0;
  for (const name of order.map((copy) => `workspace.${copy}.pb`)) {
    const path = join(root, name);
    const size = await stat(path).then(
      (stats) => stats.size,
      () => -1,
    );
    if (size < 0) continue;
    seen++;
    try {
      if (size > MAX_BYTES) throw new Error(`it has ${size} bytes`);
      const workspace = decode('Workspace', await readFile(path));
      const records = Object.keys(workspace.datasets).length + Object.keys(workspace.projects).length;
      if (records > 0) return { workspace, from: name, warnings };
      empty ??= { workspace, from: name, warnings };
    } catch (error) {
      warnings.push(`${name} is damaged (${(error as Error).message}); an older copy is used.`);
    }
  }
  if (infos.length > 0) return { ...(await rebuild(root, infos, warnings)), warnings };
  if (empty !== undefined) return empty;
  if (seen === 0) {
    throw new OarlockError('not_found', `${root} is no PaddleX workspace: it has no workspace.*.pb file.`, {
      hint: 'Name the folder that was given to PaddleX as --workspace_dir.',
    });
  }
  throw new OarlockError('invalid_argument', `The workspace file of ${root} cannot be read: ${warnings.join(' ')}`, {
    hint: 'Put back a workspace.stable.pb or workspace.bak.pb from a backup.',
  });
}

/** `info.pb` below projects, tasks and datasets. */
async function infoFiles(root: string): Promise<string[]> {
  const below = async (folder: string, id: RegExp): Promise<string[]> => {
    const names = await readdir(folder).catch(() => [] as string[]);
    return names.filter((name) => id.test(name)).map((name) => join(folder, name));
  };
  const projects = await below(join(root, 'projects'), /^P\d+$/);
  const tasks = (await Promise.all(projects.map((project) => below(project, /^T\d+$/)))).flat();
  const datasets = await below(join(root, 'datasets'), /^D\d+$/);
  const files = [...projects, ...tasks, ...datasets].map((folder) => join(folder, 'info.pb'));
  const there = await Promise.all(files.map(exists));
  return files.filter((_, at) => there[at]);
}

async function rebuild(root: string, infos: readonly string[], warnings: string[]) {
  const workspace = decode('Workspace', new Uint8Array());
  for (const file of infos) {
    const id = basename(dirname(file));
    try {
      const bytes = await readFile(file);
      if (id.startsWith('D')) workspace.datasets[id] = own(decode('Dataset', bytes), id) as DatasetMessage;
      else if (id.startsWith('P')) workspace.projects[id] = own(decode('Project', bytes), id) as ProjectMessage;
      else workspace.tasks[id] = own(decode('Task', bytes), id) as TaskMessage;
    } catch (error) {
      warnings.push(`${file} is damaged and left out: ${(error as Error).message}.`);
    }
  }
  workspace.path = storedRoot(workspace) ?? root;
  warnings.push('The workspace file has no records; they were put together from the info.pb files of the folders.');
  return { workspace, from: 'info.pb' };
}

function own<T extends { id: string }>(record: T, id: string): T {
  if (record.id !== '' && record.id !== id) throw new Error(`it belongs to ${record.id}`);
  return { ...record, id };
}

/** The root that the records were written for, from a path like `<root>/projects/P0001`. */
function storedRoot(workspace: WorkspaceMessage): string | undefined {
  for (const { path, id } of [...Object.values(workspace.projects), ...Object.values(workspace.datasets)]) {
    const tail = `/${id.startsWith('P') ? 'projects' : 'datasets'}/${id}`;
    const plain = path.replaceAll('\\', '/').replace(/\/+$/, '');
    if (plain.endsWith(tail)) return plain.slice(0, -tail.length);
  }
  return undefined;
}
