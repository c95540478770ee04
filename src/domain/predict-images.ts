/** Where the pictures of a prediction come from and what their results are called. */
import { randomBytes } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { basename, dirname, extname, join } from 'node:path';
import { createInterface } from 'node:readline';
import type { PredictImage } from '../compute/jobs.gen.js';
import type { DomainContext } from './context.js';
import type { ProjectType } from './enums.js';
import { invalidArgument, notReady, OarlockError } from './errors.js';
import type { PathGuard } from './paths.js';
import type { DatasetRecord, TaskRecord } from './records.js';

/** More in one call are refused. */
const MAX_IMAGES = 100_000;

const PREFIX = /^\s*data:[\w.+-]*\/?[\w.+-]*(?:;[\w=.+-]+)*;base64,/i;
const BASE64 = /^[A-Za-z0-9+/_\-\s]*={0,2}\s*$/;

/** Bytes of a base64 picture; a `data:` prefix, white space and the URL alphabet are tolerated. */
function decodeImage(text: string, maxBytes: number): Buffer {
  const prefix = PREFIX.exec(text.slice(0, 200))?.[0] ?? '';
  if ((text.length - prefix.length) * 0.75 > maxBytes * 1.1) {
    throw new OarlockError('resource_exhausted', `image_data is larger than ${Math.floor(maxBytes / 2 ** 20)} MB.`, {
      context: { field: 'image_data', limit_bytes: maxBytes },
      retryable: false,
    });
  }
  const body = prefix === '' ? text : text.slice(prefix.length);
  // The ends tell whether this is base64 at all; the decoder skips what it does not know, and the content is checked later.
  if (!BASE64.test(body.slice(0, 4096)) || !BASE64.test(body.slice(-4096))) {
    throw invalidArgument(
      'image_data',
      'image_data is not base64.',
      'Send the bytes of a picture file, base64 encoded.',
    );
  }
  const bytes = Buffer.from(body, 'base64');
  if (bytes.length === 0) throw invalidArgument('image_data', 'image_data is empty.');
  return bytes;
}

/** `<stem>.png`, for class folders `<parent folder>_<stem>.png`, made unique. */
export class OutputNames {
  readonly #taken = new Set<string>();

  constructor(readonly type: ProjectType) {}

  next(path: string): string {
    const own = basename(path, extname(path));
    const stem = (this.type === 'classification' ? `${basename(dirname(path))}_${own}` : own).slice(0, 200);
    let name = `${stem}.png`;
    for (let n = 2; this.#taken.has(name); n++) name = `${stem}_${n}.png`;
    this.#taken.add(name);
    return name;
  }
}

const tooMany = (): OarlockError =>
  invalidArgument('img_list', `More than ${MAX_IMAGES} pictures in one call are not possible.`);

/** Pictures that a client names; each must exist inside the allowed roots. */
export async function listedImages(
  paths: PathGuard,
  list: readonly string[],
  type: ProjectType,
): Promise<PredictImage[]> {
  if (list.length > MAX_IMAGES) throw tooMany();
  const names = new OutputNames(type);
  const images: PredictImage[] = [];
  for (const [at, given] of list.entries()) {
    const path = await paths.resolve(given, { field: `img_list[${at}]` });
    if (!(await stat(path)).isFile()) throw invalidArgument(`img_list[${at}]`, `${given} is not a file.`);
    images.push({ from: 'file', path, output: names.next(path) });
  }
  return images;
}

/** Picture and class id, or picture and annotation. Names may hold blanks. */
const LINES: Readonly<Record<'classification' | 'annotated', RegExp>> = {
  classification: /^(.+)\s(\d+)\s*$/,
  annotated: /^(.+?)\s(Annotations\/.+?)\s*$/,
};

/** Pictures of the dataset's test split, with their annotations unless these are class names. */
export async function testImages(dataset: DatasetRecord): Promise<PredictImage[]> {
  const images = dataset.type === 'instance_segmentation' ? await indexed(dataset) : await listed(dataset);
  if (images.length > 0) return images;
  throw notReady(
    'The dataset has no test pictures.',
    'Send image_data or img_list, or split the dataset with test_split above 0.',
  );
}

/** An instance segmentation set has no lists; its index names the pictures of each part. */
async function indexed({ path: root, type }: DatasetRecord): Promise<PredictImage[]> {
  const names = new OutputNames(type);
  const text = await readFile(join(root, 'statis.json'), 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return '{}';
    throw error;
  });
  const { test_files: files = [], file_info: info = {} } = JSON.parse(text) as {
    test_files?: string[];
    file_info?: Record<string, string>;
  };
  if (files.length > MAX_IMAGES) throw tooMany();
  return files.map((name) => {
    const path = join(root, name);
    const annotation = info[name];
    const truth = annotation === undefined ? {} : { truth: join(root, annotation) };
    return { from: 'file', path, output: names.next(path), ...truth };
  });
}

async function listed({ path: root, type }: DatasetRecord): Promise<PredictImage[]> {
  const names = new OutputNames(type);
  const line = LINES[type === 'classification' ? type : 'annotated'];
  const images: PredictImage[] = [];
  const file = createReadStream(join(root, 'test_list.txt'));
  try {
    for await (const text of createInterface({ input: file, crlfDelay: Number.POSITIVE_INFINITY })) {
      const [, name, annotation] = line.exec(text.trim()) ?? [];
      if (name === undefined || annotation === undefined) continue;
      if (images.length >= MAX_IMAGES) throw tooMany();
      const path = join(root, name.trim());
      const truth = type === 'classification' ? {} : { truth: join(root, annotation) };
      images.push({ from: 'file', path, output: names.next(path), ...truth });
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  } finally {
    file.destroy();
  }
  return images;
}

/** Writes a received picture to a file of the task, checked to be one. */
export async function receivedImage(
  { config, compute }: DomainContext,
  task: TaskRecord,
  text: string,
): Promise<string> {
  const bytes = decodeImage(text, config.maxImageBytes);
  const folder = join(task.path, '.received');
  await mkdir(folder, { recursive: true });
  const path = join(folder, `${randomBytes(8).toString('hex')}.img`);
  await writeFile(path, bytes);
  try {
    await compute.light('inspectImage', path);
    return path;
  } catch (error) {
    await rm(path, { force: true });
    throw error;
  }
}
