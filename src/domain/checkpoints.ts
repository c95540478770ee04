/** Checkpoint folders of a task on disk: `output/best_model` and `output/epoch_N`, complete only with `.success`. */
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { notReady } from './errors.js';
import type { MetricValues, TaskRecord } from './records.js';

const isComplete = (folder: string): Promise<boolean> =>
  stat(join(folder, '.success')).then(
    (stats) => stats.isFile(),
    () => false,
  );

/** Completely saved epochs, ascending. */
export async function savedEpochs(task: TaskRecord): Promise<number[]> {
  const output = join(task.path, 'output');
  const names = await readdir(output).catch(() => [] as string[]);
  const epochs = names.flatMap((name) => /^epoch_([1-9]\d{0,8})$/.exec(name)?.[1] ?? []).map(Number);
  const complete = await Promise.all(epochs.map((epoch) => isComplete(join(output, `epoch_${epoch}`))));
  return epochs.filter((_, at) => complete[at]).sort((a, b) => a - b);
}

/** Folder of the best model, or of a saved epoch. Throws `not_ready`. */
export async function checkpointFolder(task: TaskRecord, epoch: number | null): Promise<string> {
  const folder = join(task.path, 'output', epoch === null ? 'best_model' : `epoch_${epoch}`);
  if (await isComplete(folder)) return folder;
  if (epoch === null) {
    throw notReady(`${task.id} has no best model yet.`, 'It is there after the first evaluation during training.');
  }
  const saved = await savedEpochs(task);
  throw notReady(
    `Epoch ${epoch} of ${task.id} is not saved.`,
    saved.length === 0 ? 'No epoch is saved yet.' : `Saved are: ${saved.join(', ')}.`,
  );
}

/** SHA-256 of a checkpoint's weights, from its manifest; null for one that PaddleX wrote. */
export async function weightsDigest(folder: string): Promise<string | null> {
  try {
    const manifest = JSON.parse(await readFile(join(folder, 'manifest.json'), 'utf8')) as Manifest;
    return manifest.files?.['model.safetensors']?.sha256 ?? null;
  } catch {
    return null;
  }
}

interface Manifest {
  files?: Record<string, { sha256?: string }>;
}

/** Newest state that a stop or a crash in mid-epoch left, with the epochs done before it; saved epochs are none. */
export async function resumeState(task: TaskRecord): Promise<{ epochs: number } | undefined> {
  const folder = join(task.path, 'output', 'resume');
  const names = await readdir(folder).catch(() => [] as string[]);
  const steps = names
    .flatMap((name) => /^step_(\d{1,12})$/.exec(name)?.[0] ?? [])
    .sort((a, b) => stepOf(b) - stepOf(a));
  for (const name of steps) {
    if (!(await isComplete(join(folder, name)))) continue;
    const epochs = await readFile(join(folder, name, 'state.json'), 'utf8')
      .then((text) => (JSON.parse(text) as { epoch?: unknown }).epoch)
      .catch(() => undefined);
    if (typeof epochs === 'number') return { epochs };
  }
  return undefined;
}

const stepOf = (name: string): number => Number(name.slice(name.indexOf('_') + 1));

/**
 * `eval_metrics` of a checkpoint's model.yml, for trainings that this server did not watch (imported ones).
 * Reads only that block of the YAML: `eval_metrics:` followed by deeper-indented `name: number` lines.
 */
export async function checkpointMetrics(folder: string): Promise<MetricValues | null> {
  const text = await readFile(join(folder, 'model.yml'), 'utf8').catch(() => '');
  const lines = text.split('\n');
  const at = lines.findIndex((line) => /^\s+eval_metrics:\s*$/.test(line));
  if (at === -1) return null;
  const indent = (line: string): number => line.length - line.trimStart().length;
  const outer = indent(lines[at] as string);
  const metrics: MetricValues = {};
  for (const line of lines.slice(at + 1)) {
    if (line.trim() === '') continue;
    if (indent(line) <= outer) break;
    const [, name, value] = /^\s+["']?([\w-]+)["']?:\s*([-+.\w]+)\s*$/.exec(line) ?? [];
    if (name === undefined) continue;
    const number = Number(value);
    metrics[name] = Number.isFinite(number) ? number : null;
  }
  return Object.keys(metrics).length === 0 ? null : metrics;
}
