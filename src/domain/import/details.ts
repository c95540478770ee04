/** Dataset statistics (`details`) of an old workspace: from its pickle, made complete, or again from the list files. */
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { DatasetDetails } from '../contracts.js';
import type { DatasetCounts } from '../records.js';
import { asText } from './context.js';

const FIELDS = [
  'file_info',
  'label_info',
  'labels',
  'train_files',
  'val_files',
  'test_files',
  'class_train_file_list',
  'class_val_file_list',
  'class_test_file_list',
];
const MAPS = ['label_info', 'class_train_file_list', 'class_val_file_list', 'class_test_file_list'] as const;
const PICTURE = /\.(jpe?g|png|bmp)$/i;

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const texts = (value: unknown): string[] =>
  Array.isArray(value)
    ? value.filter((entry) => typeof entry === 'string').map((path) => path.replaceAll('\\', '/'))
    : [];

/** Every label must be a key of every map: the page reads the length of each. Returns `undefined` for something else than statistics. */
export function completeDetails(read: unknown): DatasetDetails | undefined {
  if (!isObject(read) || !Array.isArray(read.labels) || !isObject(read.file_info)) return undefined;
  const labels = read.labels.map(asText);
  const maps = Object.fromEntries(
    MAPS.map((name) => {
      const map = isObject(read[name]) ? read[name] : {};
      const keys = [...new Set([...labels, ...Object.keys(map)])];
      return [name, Object.fromEntries(keys.map((key) => [key, texts(map[key])]))];
    }),
  ) as Pick<DatasetDetails, (typeof MAPS)[number]>;
  const info = Object.entries(read.file_info).map(([path, value]) => [
    path.replaceAll('\\', '/'),
    asText(value).replaceAll('\\', '/'),
  ]);
  return {
    fields: FIELDS,
    labels,
    file_info: Object.fromEntries(info),
    ...maps,
    train_files: texts(read.train_files),
    val_files: texts(read.val_files),
    test_files: texts(read.test_files),
  };
}

export const countsOf = (details: DatasetDetails): DatasetCounts => ({
  labels: details.labels.length,
  train: details.train_files.length,
  val: details.val_files.length,
  test: details.test_files.length,
});

const lines = async (path: string): Promise<string[] | undefined> => {
  const text = await readFile(path, 'utf8').catch(() => undefined);
  return text
    ?.replace(/^\uFEFF/, '')
    .split(/\r?\n/)
    .filter((line) => line.trim() !== '');
};

/** Statistics of a classification set from its folders and lists, for sets whose pickle is lost. `undefined` when it is none. */
export async function rebuildClassification(root: string): Promise<DatasetDetails | undefined> {
  const split = await lines(join(root, 'train_list.txt'));
  return split === undefined ? fromFolders(root) : fromLists(root, split);
}

function emptyDetails(labels: string[]): DatasetDetails {
  const map = () => Object.fromEntries(labels.map((label) => [label, [] as string[]]));
  return {
    fields: FIELDS,
    labels,
    file_info: {},
    label_info: map(),
    train_files: [],
    val_files: [],
    test_files: [],
    class_train_file_list: map(),
    class_val_file_list: map(),
    class_test_file_list: map(),
  };
}

async function fromLists(root: string, train: string[]): Promise<DatasetDetails | undefined> {
  const labels = (await lines(join(root, 'labels.txt')))?.map((line) => line.trim());
  if (labels === undefined || labels.length === 0) return undefined;
  const details = emptyDetails(labels);
  const lists = { train, val: await lines(join(root, 'val_list.txt')), test: await lines(join(root, 'test_list.txt')) };
  for (const part of ['train', 'val', 'test'] as const) {
    for (const line of lists[part] ?? []) {
      const match = /^(.+)\s(\d+)\s*$/.exec(line);
      const label = match === null ? undefined : labels[Number(match[2])];
      if (match === null || label === undefined) continue;
      const path = (match[1] as string).trim().replaceAll('\\', '/');
      details.file_info[path] = label;
      details.label_info[label]?.push(path);
      details[`${part}_files`].push(path);
      details[`class_${part}_file_list`][label]?.push(path);
    }
  }
  return Object.keys(details.file_info).length === 0 ? undefined : details;
}

async function fromFolders(root: string): Promise<DatasetDetails | undefined> {
  const byLabel = new Map<string, string[]>();
  for (const label of (await readdir(root)).filter((name) => !name.startsWith('.'))) {
    const folder = join(root, label);
    if (
      !(await stat(folder).then(
        (stats) => stats.isDirectory(),
        () => false,
      ))
    )
      continue;
    const pictures = (await readdir(folder)).filter((name) => PICTURE.test(name) && !name.startsWith('.')).sort();
    if (pictures.length > 0)
      byLabel.set(
        label,
        pictures.map((name) => `${label}/${name}`),
      );
  }
  if (byLabel.size === 0) return undefined;
  // Labels are sorted by code point, which is what comparing UTF-8 bytes gives.
  const labels = [...byLabel.keys()].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  const details = emptyDetails(labels);
  for (const label of labels) {
    details.label_info[label] = byLabel.get(label) as string[];
    for (const path of details.label_info[label]) details.file_info[path] = label;
  }
  return details;
}
