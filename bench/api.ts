/** `npm run bench -- api`: requests per second and tail latency, ours against the PaddleX reference, alone and during a training. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { median } from './lib/contender.js';
import { jpegFolder } from './lib/images.js';
import { type LoadResult, load } from './lib/load.js';
import { add, finish } from './lib/report.js';
import { type Filled, fill, residentMib, type Server, startOurs, startReference } from './lib/servers.js';

const clients = 8;
const seconds = Number(process.env.BENCH_SECONDS ?? 3);
const rounds = Number(process.env.BENCH_ROUNDS ?? 3);

const routes = (at: Filled): [string, string, number][] => [
  ['GET /project', '/project', 5],
  ['GET /dataset/details', `/dataset/details?did=${at.did}`, 5],
  ['GET /dataset', '/dataset', 30],
  ['GET /project/task', '/project/task', 30],
  ['GET /file', `/file?path=${encodeURIComponent(at.image)}`, 5],
];

const show = (r: LoadResult): string => `${r.perSecond.toFixed(0)}/s p99 ${r.p99.toFixed(1)} ms`;

async function measure(server: Server, path: string): Promise<LoadResult> {
  const result = await load(server.port, path, clients, seconds);
  if (result.errors > 0) throw new Error(`${server.name} ${path}: ${result.errors} errors`);
  return result;
}

const middle = (results: LoadResult[]): LoadResult => ({
  perSecond: median(results.map((r) => r.perSecond)),
  p50: median(results.map((r) => r.p50)),
  p99: median(results.map((r) => r.p99)),
  errors: 0,
});

export async function api(): Promise<void> {
  const base = mkdtempSync(join(tmpdir(), 'oarlock-bench-'));
  const images = jpegFolder('api', 10, 100, 500, 375);
  const ours = await startOurs(join(base, 'ours'), images, 18_080);
  const reference = await startReference(join(base, 'reference'), 18_081);
  try {
    const [a, b] = [await fill(ours, images, 20), await fill(reference, images, 20)];
    const theirs = routes(b);
    for (const [i, [name, path, goal]] of routes(a).entries()) {
      const mine: LoadResult[] = [];
      const other: LoadResult[] = [];
      for (let round = 0; round < rounds; round += 1) {
        mine.push(await measure(ours, path));
        other.push(await measure(reference, theirs[i]?.[1] ?? ''));
      }
      const ratios = mine.map((m, round) => m.perSecond / (other[round]?.perSecond ?? Number.NaN));
      add({
        question: `${name}, ${clients} clients`,
        ours: show(middle(mine)),
        peer: `PaddleX ${show(middle(other))}`,
        ratio: median(ratios),
        goal,
      });
    }
    const train = { ...(await trainParams(ours, a)), batch_size: 32, num_epochs: 50, save_interval_epochs: 50 };
    const tid = String((await ours.call('POST', '/project/task', { pid: a.pid, train: JSON.stringify(train) })).tid);
    await ours.call('POST', '/project/task/train', { tid });
    for (let step = 0; step < 300; step += 1) {
      const log = (await ours.call('GET', '/project/task/metrics', { tid, type: 'train' })).train_log as {
        train_metrics: unknown;
      } | null;
      if (log?.train_metrics) break;
      await sleep(200);
    }
    for (const [name, path] of routes(a)) {
      const results: LoadResult[] = [];
      for (let round = 0; round < rounds; round += 1) results.push(await measure(ours, path));
      const r = middle(results);
      add({
        question: `${name} during a training, p99`,
        ours: show(r),
        peer: 'limit 15 ms',
        ratio: r.p99 / 15,
        ...(/project$|details/.test(name) ? { goal: 1 } : {}),
        atMost: true,
      });
    }
    const rss = residentMib(ours.pid);
    add({
      question: 'API process, resident memory',
      ours: `${rss.toFixed(0)} MiB`,
      peer: 'limit 150 MiB',
      ratio: rss / 150,
      goal: 1,
      atMost: true,
    });
    add({
      question: 'ready after start',
      ours: `${ours.readySeconds.toFixed(2)} s`,
      peer: `PaddleX ${reference.readySeconds.toFixed(2)} s; limit 1 s`,
      ratio: ours.readySeconds,
      goal: 1,
      atMost: true,
    });
    await ours.call('PUT', '/project/task/train', { tid, act: 'stop' });
  } finally {
    await Promise.all([ours.stop(), reference.stop()]);
    rmSync(base, { recursive: true, force: true });
  }
  finish('api');
}

async function trainParams(server: Server, at: Filled): Promise<Record<string, unknown>> {
  return (await server.call('GET', '/project/task/params', { pid: at.pid })).train as Record<string, unknown>;
}
