/** Collects rows of «ours against a peer», prints them and writes them as JSON. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import { root } from './peers.js';

export interface Row {
  question: string;
  ours: string;
  peer: string;
  ratio: number;
  /** The ratio the project wants, if one is set. */
  goal?: number;
  /** True when smaller is better (memory, latency). */
  atMost?: boolean;
}

const rows: Row[] = [];

export const add = (row: Row): void => {
  rows.push(row);
  process.stdout.write(`${line(row)}\n`);
};

const verdict = (row: Row): string => {
  if (row.goal === undefined) return '';
  const met = row.atMost ? row.ratio <= row.goal : row.ratio >= row.goal;
  return `${row.atMost ? '≤' : '≥'} ${row.goal} ${met ? 'met' : 'MISSED'}`;
};

const line = (row: Row): string =>
  `${row.question.padEnd(44)} ${row.ours.padStart(22)} ${row.peer.padStart(34)} ${row.ratio.toFixed(2).padStart(8)}× ${verdict(row)}`;

export function finish(name: string): void {
  const machine = {
    cpu: cpus()[0]?.model,
    cores: cpus().length,
    memory_gib: Math.round(totalmem() / 2 ** 30),
    node: process.version,
  };
  process.stdout.write(`\n${name} on ${machine.cores} × ${machine.cpu}, ${machine.memory_gib} GiB\n`);
  process.stdout.write(
    `${'question'.padEnd(44)} ${'ours'.padStart(22)} ${'peer'.padStart(34)} ${'ratio'.padStart(9)} goal\n`,
  );
  for (const row of rows) process.stdout.write(`${line(row)}\n`);
  const folder = join(root, 'bench/results');
  mkdirSync(folder, { recursive: true });
  writeFileSync(
    join(folder, `${name}.json`),
    JSON.stringify({ name, date: new Date().toISOString(), machine, rows }, null, 2),
  );
  rows.length = 0;
}
