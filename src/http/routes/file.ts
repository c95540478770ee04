/** Files by path: pictures as base64, logs and lists as they are. */
import { createReadStream, type ReadStream, read as readCallback } from 'node:fs';
import { extname } from 'node:path';
import { promisify } from 'node:util';
import { z } from 'zod';
import type { DatasetsApi, PreviewOptions } from '../../domain/contracts.js';
import { unsupported } from '../../domain/errors.js';
import { type OpenedFile, type PathGuard, type ResolveOptions, readAll } from '../../domain/paths.js';
import { JSON_TYPE } from '../envelope.js';
import { defineRoute, RawAnswer, type Route } from '../route.js';
import { jsonAnswer } from './shapes.js';

const readAt = promisify(readCallback);

export interface FileServices {
  readonly paths: PathGuard;
  readonly datasets: Pick<DatasetsApi, 'get' | 'preview' | 'annotation'>;
}

/** A picture is sent whole inside JSON. */
const MAX_IMAGE_BYTES = 128 * 2 ** 20;
const CACHE_BYTES = 16 * 2 ** 20;
const CACHED_PICTURE_BYTES = 2 ** 20;
/** Of a log asked for as lines the end is sent. */
const MAX_LOG_BYTES = 8 * 2 ** 20;
const TAIL_LINES = 50;

const IMAGES = new Set(['.jpeg', '.jpg', '.bmp', '.png']);
const RASTERS = new Set(['.npy', '.tif', '.tiff']);
const MORE_IMAGES = new Set([...IMAGES, '.tif', '.tiff', '.gif', '.webp']);
const LOGS = new Set(['.log', '.txt']);

/** Never a type that a browser would run: an xml or html file shown from our origin could act in the user's name. */
const TEXTS: Readonly<Record<string, string>> = {
  '.log': 'text/plain; charset=utf-8',
  '.txt': 'text/plain; charset=utf-8',
  '.yml': 'text/plain; charset=utf-8',
  '.yaml': 'text/plain; charset=utf-8',
  '.xml': 'text/plain; charset=utf-8',
  '.csv': 'text/plain; charset=utf-8',
  '.json': 'application/json',
  '.npy': 'application/octet-stream',
};
const PICTURE_TYPES: Readonly<Record<string, string>> = {
  '.png': 'image/png',
  '.jpg': 'image/jpeg',
  '.jpeg': 'image/jpeg',
  '.bmp': 'image/bmp',
  '.gif': 'image/gif',
  '.webp': 'image/webp',
};
const SANDBOX = { 'content-security-policy': "sandbox; default-src 'none'", 'cache-control': 'no-cache' };

const extensionOf = (path: string): string => extname(path.replaceAll('\\', '/')).toLowerCase();

const pathInput = z.object({ path: z.string().min(1).describe('Path on the server') });
const picture = z.object({ img_data: z.string().describe('The picture, base64 without prefix') });
const lines = z.object({ log: z.array(z.string()) });

const HEAD = Buffer.from('{"status":1,"img_data":"');
const TAIL = Buffer.from('"}');

/** The JSON answer around base64, without a detour through JSON.stringify. */
function pictureAnswer(bytes: Buffer): RawAnswer {
  const body = Buffer.allocUnsafe(HEAD.length + 4 * Math.ceil(bytes.length / 3) + TAIL.length);
  HEAD.copy(body);
  body.write(bytes.toString('base64'), HEAD.length, 'latin1');
  TAIL.copy(body, body.length - TAIL.length);
  return new RawAnswer(body, JSON_TYPE);
}

/** Answers of pictures shown lately: pages go back and forth between the same few. */
class PictureCache {
  readonly #kept = new Map<string, { stamp: string; answer: RawAnswer; size: number }>();
  #bytes = 0;

  get(file: Pick<OpenedFile, 'path' | 'stamp'>): RawAnswer | undefined {
    const found = this.#kept.get(file.path);
    if (found?.stamp !== file.stamp) return undefined;
    // Used last, forgotten last.
    this.#kept.delete(file.path);
    this.#kept.set(file.path, found);
    return found.answer;
  }

  put(file: Pick<OpenedFile, 'path' | 'stamp'>, answer: RawAnswer): void {
    const size = (answer.body as Buffer).length;
    if (size > CACHED_PICTURE_BYTES) return;
    this.#bytes += size - (this.#kept.get(file.path)?.size ?? 0);
    this.#kept.delete(file.path);
    this.#kept.set(file.path, { stamp: file.stamp, answer, size });
    for (const [path, entry] of this.#kept) {
      if (this.#bytes <= CACHE_BYTES) break;
      this.#kept.delete(path);
      this.#bytes -= entry.size;
    }
  }
}

function streamAnswer(file: OpenedFile, contentType: string): RawAnswer {
  if (file.size === 0) {
    file.close();
    return new RawAnswer('', contentType, 200, SANDBOX);
  }
  // `end` pins the length that was announced: a log may grow meanwhile.
  const stream: ReadStream = createReadStream('', { fd: file.fd, start: 0, end: file.size - 1, autoClose: true });
  return new RawAnswer(stream, contentType, 200, { ...SANDBOX, 'content-length': String(file.size) });
}

/** Last `maxBytes` of a file as lines with their ends; a first, cut line is left out. */
async function lastLines(file: OpenedFile, maxBytes: number): Promise<string[]> {
  try {
    const start = Math.max(0, file.size - maxBytes);
    const bytes = Buffer.allocUnsafe(file.size - start);
    let at = 0;
    while (at < bytes.length) {
      const { bytesRead } = await readAt(file.fd, bytes, at, bytes.length - at, start + at);
      if (bytesRead === 0) break;
      at += bytesRead;
    }
    const found =
      bytes
        .subarray(0, at)
        .toString('utf8')
        .match(/[^\n]*\n|[^\n]+$/g) ?? [];
    return start > 0 ? found.slice(1) : found;
  } finally {
    file.close();
  }
}

export function fileRoutes({ paths, datasets }: FileServices): Route[] {
  const pictures = new PictureCache();
  const wantsJson = (accept: unknown): boolean => accept === 'application/json';

  async function readPicture(path: string, options: ResolveOptions = {}): Promise<RawAnswer> {
    const file = await paths.open(path, options);
    try {
      const known = pictures.get(file);
      if (known !== undefined) return known;
      const answer = pictureAnswer(await readAll(file, MAX_IMAGE_BYTES));
      pictures.put(file, answer);
      return answer;
    } finally {
      file.close();
    }
  }

  /** A picture with its labels, of an imported dataset. */
  async function drawn(did: string, path: string, options: PreviewOptions): Promise<RawAnswer> {
    const { content, type } = datasets.get(did);
    if (type === 'classification') {
      throw unsupported(
        `${did} is a classification dataset: its pictures carry no labels to draw.`,
        'Leave out did to get the picture itself.',
      );
    }
    const key = { path: `${did}\0${path}\0${JSON.stringify(options)}`, stamp: `${content}` };
    const known = pictures.get(key);
    if (known !== undefined) return known;
    const answer = pictureAnswer(await datasets.preview(did, path, options));
    pictures.put(key, answer);
    return answer;
  }

  /** Bytes of anything inside the workspace. */
  async function rawFile(path: string): Promise<RawAnswer> {
    const file = await paths.open(path, { within: 'workspace' });
    const extension = extensionOf(file.path);
    return streamAnswer(file, PICTURE_TYPES[extension] ?? TEXTS[extension] ?? 'application/octet-stream');
  }

  return [
    defineRoute({
      method: 'get',
      path: '/file',
      summary: 'A picture as base64, or a log, list or annotation file as it is',
      tag: 'file',
      input: pathInput.extend({
        did: z
          .string()
          .min(1)
          .nullish()
          .describe("Draw this dataset's annotation into the picture; `path` may then be relative to the dataset"),
        legend: z.boolean().nullish().describe('With did, segmentation: names of the classes at the right'),
        channels: z
          .array(z.int().min(0))
          .length(3)
          .nullish()
          .describe('With did, remote sensing: which channels are shown as red, green and blue; default 0, 1, 2'),
      }),
      output: z.union([picture, lines]),
      produces: ['text/plain', 'application/octet-stream'],
      async handle({ path, did, legend, channels }, ctx) {
        const extension = extensionOf(path);
        if (did != null && (IMAGES.has(extension) || RASTERS.has(extension))) {
          return drawn(did, path, { legend: legend === true, channels: channels ?? null });
        }
        if (IMAGES.has(extension)) return readPicture(path);
        const type = TEXTS[extension];
        if (type === undefined) {
          // Whether there is a file decides which of the two is wrong.
          (await paths.open(path)).close();
          throw unsupported(
            `Files of the type ${extension || 'without extension'} cannot be shown.`,
            'Offered are jpg, jpeg, png, bmp, log, txt, yml, xml, json, csv and npy.',
          );
        }
        const file = await paths.open(path);
        if (LOGS.has(extension) && wantsJson(ctx.headers.accept)) return { log: await lastLines(file, MAX_LOG_BYTES) };
        return streamAnswer(file, type);
      },
    }),
    defineRoute({
      method: 'get',
      path: '/dataset/image',
      summary: 'A picture as base64',
      tag: 'file',
      input: pathInput,
      output: picture,
      async handle({ path }) {
        if (!MORE_IMAGES.has(extensionOf(path))) {
          (await paths.open(path)).close();
          throw unsupported('That is no picture by its name.', 'Use /dataset/file for other files of the workspace.');
        }
        return readPicture(path);
      },
    }),
    ...(['/dataset/file', '/model/file'] as const).map((route) =>
      defineRoute({
        method: 'get',
        path: route,
        summary: 'A file inside the workspace as it is',
        tag: 'file',
        input: pathInput,
        output: z.object({}),
        produces: ['application/octet-stream', 'text/plain', 'image/png', 'image/jpeg'],
        handle: ({ path }) => rawFile(path),
      }),
    ),
    defineRoute({
      method: 'get',
      path: '/dataset/npy',
      summary: 'An instance segmentation annotation',
      tag: 'file',
      input: pathInput,
      output: z.object({}),
      async handle({ path }) {
        const file = await paths.open(path, { within: 'workspace' });
        file.close();
        return jsonAnswer(await datasets.annotation(file.path));
      },
    }),
    defineRoute({
      method: 'get',
      path: '/project/task/train/file',
      summary: 'The last 50 lines of a log',
      tag: 'task',
      input: pathInput,
      output: lines,
      async handle({ path }) {
        const file = await paths.open(path);
        if (!(extensionOf(file.path) in TEXTS)) {
          file.close();
          throw unsupported('That is no log by its name.');
        }
        return { log: (await lastLines(file, 2 ** 20)).slice(-TAIL_LINES) };
      },
    }),
  ];
}
