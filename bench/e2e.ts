/** `npm run bench -- e2e`: training from JPEG files on disk through the server, against the bare training step. */
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { median } from './lib/contender.js';
import { jpegFolder } from './lib/images.js';
import { root } from './lib/peers.js';
import { add, finish } from './lib/report.js';
import { fill, startOurs } from './lib/servers.js';

const binary = join(process.env.CARGO_TARGET_DIR ?? join(root, 'target'), 'release/oarlock-engine');

async function stepOnly(model: string, batch: number): Promise<number> {
  const args = [
    'bench-step',
    '--model',
    model,
    '--batch',
    `${batch}`,
    '--size',
    '224',
    '--precision',
    'auto',
    '--steps',
    '6',
    '--warmup',
    '6',
    '--threads',
    '2',
  ];
  const done = await promisify(execFile)(binary, args);
  return (JSON.parse(done.stdout.trim().split('\n').at(-1) ?? '{}') as { images_per_second: number }).images_per_second;
}

export async function endToEnd(): Promise<void> {
  const base = mkdtempSync(join(tmpdir(), 'oarlock-bench-'));
  const images = jpegFolder('e2e', 10, 70, 500, 375);
  const server = await startOurs(join(base, 'ws'), images, 18_080);
  try {
    const at = await fill(server, images, 1);
    for (const [model, batch] of [
      ['ResNet50', 16],
      ['ResNet18', 32],
      ['MobileNetV3_small', 32],
    ] as const) {
      const defaults = (await server.call('GET', '/project/task/params', { pid: at.pid })).train as Record<
        string,
        unknown
      >;
      const train = JSON.stringify({ ...defaults, model, batch_size: batch, num_epochs: 20, save_interval_epochs: 20 });
      const before = await stepOnly(model, batch);
      const created = await server.call('POST', '/project/task', { pid: at.pid, train });
      const tid = String(created.tid);
      const begun = await server.call('POST', '/project/task/train', { tid });
      if (begun.status !== 1) throw new Error(`${JSON.stringify(created)} ${JSON.stringify(begun)}`);
      // The first epoch decodes every file; later ones find the decoded pictures in memory.
      const decoding: number[] = [];
      const cached: number[] = [];
      const waits: number[] = [];
      const answer = await fetch(`http://127.0.0.1:${server.port}/events`);
      const reader = answer.body?.pipeThrough(new TextDecoderStream()).getReader();
      const deadline = Date.now() + 120_000;
      let text = '';
      while (cached.length < 20 && Date.now() < deadline) {
        const part = await reader?.read();
        if (!part || part.done) break;
        text += part.value;
        const events = text.split('\n\n');
        text = events.pop() ?? '';
        for (const event of events) {
          const data = /^data: (.*)$/m.exec(event)?.[1];
          if (!data?.includes('images_per_second')) continue;
          const step = JSON.parse(data) as {
            epoch: number;
            step: number;
            images_per_second: number;
            data_wait_seconds: number;
            step_seconds: number;
          };
          if (step.epoch === 1 && step.step <= 8) continue; // the first steps fill the prefetch ring and tune kernels
          (step.epoch === 1 ? decoding : cached).push(step.images_per_second);
          waits.push(step.data_wait_seconds / Math.max(step.step_seconds, 1e-9));
        }
      }
      if (cached.length < 5) {
        const state = JSON.stringify(await server.call('GET', '/project/task', { tid }));
        throw new Error(`${model}: the training reported only ${decoding.length} + ${cached.length} steps: ${state}`);
      }
      await reader?.cancel();
      await server.call('PUT', '/project/task/train', { tid, act: 'stop' });
      await sleep(500);
      const after = await stepOnly(model, batch);
      const bare = (before + after) / 2;
      for (const [what, rates, goal] of [
        ['first epoch', decoding, undefined],
        ['later epochs', cached, 0.95],
      ] as const) {
        add({
          question: `${model} batch ${batch} from JPEGs, ${what}`,
          ours: `${median(rates).toFixed(1)} img/s`,
          peer: `step alone ${bare.toFixed(1)} img/s`,
          ratio: median(rates) / bare,
          ...(goal === undefined ? {} : { goal }),
        });
      }
      const share = median(waits);
      add({
        question: `${model} batch ${batch}, data wait`,
        ours: `${(100 * share).toFixed(1)} %`,
        peer: 'of the step time',
        ratio: share,
        goal: 0.05,
        atMost: true,
      });
    }
  } finally {
    await server.stop();
    rmSync(base, { recursive: true, force: true });
  }
  finish('e2e');
}
