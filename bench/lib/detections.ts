/** Synthetic results of a detector for the benchmarks, always the same ones. */
import { existsSync, mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from './peers.js';

/** A small generator with a seed (mulberry32); the numbers need no quality. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let z = Math.imul(state ^ (state >>> 15), 1 | state);
    z = (z + Math.imul(z ^ (z >>> 7), 61 | z)) ^ z;
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * A folder with `truths.txt` and `detections.txt`: `images` of 640×480, as many objects of 80 classes as in COCO's
 * validation set (7 each), `found` detections each, some of them near an object; and `boxes.txt` of `boxes` proposals.
 */
export function detectionResults(images: number, found: number, boxes: number): string {
  const folder = join(root, 'bench/.peers/data', `detections-${images}x${found}-${boxes}`);
  if (existsSync(folder)) return folder;
  const random = generator(1);
  const tenth = (value: number): string => value.toFixed(1);
  const box = (): number[] => {
    const [w, h] = [8 * 40 ** random(), 8 * 40 ** random()];
    return [random() * (640 - w), random() * (480 - h), w, h];
  };
  const truths: string[] = [];
  const detections: string[] = [];
  for (let image = 0; image < images; image += 1) {
    const objects = Array.from({ length: Math.floor(random() * 15) }, () => ({
      class: Math.floor(80 * random() ** 2),
      box: box(),
    }));
    for (const o of objects) truths.push([image, o.class, ...o.box.map(tenth)].join(' '));
    for (let i = 0; i < found; i += 1) {
      const near = random() < 0.3 ? objects[i % Math.max(objects.length, 1)] : undefined;
      const [x = 0, y = 0, w = 1, h = 1] = near?.box ?? box();
      const shift = (side: number): number => (random() - 0.5) * 0.3 * side;
      const moved = [x + shift(w), y + shift(h), Math.max(1, w + shift(w)), Math.max(1, h + shift(h))];
      const score = near ? random() ** 0.5 : random() ** 2;
      const category = near && random() < 0.9 ? near.class : Math.floor(random() * 80);
      detections.push([image, category, score.toFixed(4), ...moved.map(tenth)].join(' '));
    }
  }
  const proposals = Array.from({ length: boxes }, () => {
    const [x = 0, y = 0, w = 0, h = 0] = box();
    return [random().toFixed(6), ...[x, y, x + w, y + h].map(tenth)].join(' ');
  });
  mkdirSync(`${folder}.tmp`, { recursive: true });
  const write = (name: string, lines: string[]): void =>
    writeFileSync(join(`${folder}.tmp`, name), `${lines.join('\n')}\n`);
  write('truths.txt', truths);
  write('detections.txt', detections);
  write('boxes.txt', proposals);
  renameSync(`${folder}.tmp`, folder);
  return folder;
}
