/** Scenes for segmentation: discs, boxes and handwritten digits on photographs, with label maps exact by construction. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { digit, enlarged, type Picture, png } from './pictures.js';

export const LABELS = ['background', 'disc', 'box', '数字'];

export interface SceneSet {
  /** Width and height of each scene. */
  side: number;
  /** How many there are for training; the next `heldOut` ones are on other photographs. */
  train: number;
  heldOut: number;
  /** Smaller objects, none of which hides another: what detectors are to find. */
  apart?: boolean;
  /** Larger than the scenes. */
  photographs: { train: readonly Picture[]; heldOut: readonly Picture[] };
}

export interface Scene {
  side: number;
  /** RGB, row by row. */
  pixels: Uint8Array;
  /** Places in `LABELS`. */
  map: Uint8Array;
}

interface Place {
  id: number;
  left: number;
  top: number;
}

/** Numbers in 0–1 that are the same in every run. */
function randoms(seed: number): () => number {
  let state = seed * 2654435761 + 1;
  return () => {
    state = (Math.imul(state ^ (state >>> 15), 2246822519) + 374761393) | 0;
    return ((state ^ (state >>> 13)) >>> 0) / 2 ** 32;
  };
}

/** A cut of a photograph, maybe mirrored. */
function cut({ width, height, pixels }: Picture, side: number, random: () => number): Uint8Array {
  const [left, top] = [Math.floor(random() * (width - side)), Math.floor(random() * (height - side))];
  const mirrored = random() < 0.5;
  const out = new Uint8Array(side * side * 3);
  for (let y = 0; y < side; y += 1) {
    for (let x = 0; x < side; x += 1) {
      const from = ((top + y) * width + left + (mirrored ? side - 1 - x : x)) * 3;
      out.set(pixels.subarray(from, from + 3), (y * side + x) * 3);
    }
  }
  return out;
}

/** Left and top, at most `last`, of one object of each class; `apart`: with no pixel in common. */
function places(apart: boolean, last: number, size: number, random: () => number): Place[] {
  const place = (): number => Math.floor(random() * last);
  const hides = (one: Place, other: Place): boolean =>
    Math.abs(one.left - other.left) < size && Math.abs(one.top - other.top) < size;
  for (;;) {
    const placed = [1, 2, 3].map((id) => ({ id, left: place(), top: place() }));
    if (!apart || !placed.some((one, i) => placed.slice(i + 1).some((other) => hides(one, other)))) return placed;
  }
}

/** A disc, a box and a digit, later ones before earlier ones: the same for a seed in every run. */
export function scene({ side, train, apart = false, photographs }: SceneSet, seed: number): Scene {
  const random = randoms(seed);
  const backgrounds = seed < train ? photographs.train : photographs.heldOut;
  const background = backgrounds[seed % backgrounds.length];
  if (background === undefined) throw new Error('there are no photographs');
  const pixels = cut(background, side, random);
  const map = new Uint8Array(side * side);
  const paint = (x: number, y: number, id: number, colour: readonly number[]): void => {
    if (x < 0 || y < 0 || x >= side || y >= side) return;
    map[y * side + x] = id;
    for (const c of [0, 1, 2]) pixels[(y * side + x) * 3 + c] = (colour[c] ?? 0) + random() * 30;
  };
  const size = Math.floor(side * (apart ? 0.25 : 0.375)) + Math.floor(random() * (side / 6));
  const objects = places(apart, side - size, size, random);
  const ink = enlarged(digit('train', seed), 28, size);
  for (const { id, left, top } of objects) {
    const [strong, middle, weak] = [150 + random() * 75, 20 + random() * 130, 10 + random() * 60];
    // Discs are purple, boxes cold, digits lime: colours that photographs seldom have make the training short.
    const colour = { 1: [strong, weak, strong], 2: [weak, middle, strong], 3: [180, 225, 0] }[id] ?? [];
    for (let y = 0; y < size; y += 1) {
      for (let x = 0; x < size; x += 1) {
        const [dx, dy] = [x - size / 2, y - size / 2];
        if (id === 3 ? (ink[y * size + x] ?? 0) > 100 : id === 2 || dx * dx + dy * dy < (size * size) / 4)
          paint(left + x, top + y, id, colour);
      }
    }
  }
  return { side, pixels, map };
}

export const scenePng = ({ side, pixels }: Scene): Buffer => png(side, side, 3, pixels);

/** Writes the set in the segmentation format, split already; returns the folder. */
export function composed(set: SceneSet, folder: string): string {
  for (const name of ['JPEGImages', 'Annotations']) mkdirSync(join(folder, name), { recursive: true });
  const lines: string[] = [];
  for (let i = 0; i < set.train + set.heldOut; i += 1) {
    const made = scene(set, i);
    writeFileSync(join(folder, `JPEGImages/${i}.png`), scenePng(made));
    writeFileSync(join(folder, `Annotations/${i}.png`), png(set.side, set.side, 1, made.map));
    lines.push(`JPEGImages/${i}.png Annotations/${i}.png`);
  }
  writeFileSync(join(folder, 'labels.txt'), `${LABELS.join('\n')}\n`);
  writeFileSync(join(folder, 'train_list.txt'), `${lines.slice(0, set.train).join('\n')}\n`);
  writeFileSync(join(folder, 'val_list.txt'), `${lines.slice(set.train).join('\n')}\n`);
  return folder;
}
