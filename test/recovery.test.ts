/** Crashes at bad moments: a compute host killed in mid-epoch, the server killed while it trains. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { colourFolder } from './lib/pictures.js';
import { hosts, type Json, project, TestServer } from './lib/server.js';

const params: Json = {
  model: 'MobileNetV3_small',
  batch_size: 8,
  num_epochs: 4,
  learning_rate: 0.02,
  save_interval_epochs: 1,
  image_shape: [64, 64],
  pretrain_weights: null,
};

describe('recovery', { concurrency: false }, () => {
  let server: TestServer;
  let images = '';
  let pid = '';

  before(async () => {
    server = await TestServer.start();
    images = colourFolder(join(server.folder, 'images'), ['red', 'green', 'blue'], 120, 64);
    ({ pid } = await project(server, images));
  });
  after(() => server.remove());

  async function training(epoch: number): Promise<string> {
    const { tid } = await server.ok('POST', '/project/task', { pid, train: params });
    await server.ok('POST', '/project/task/train', { tid });
    await server.until(
      120,
      'GET',
      '/project/task/metrics',
      { tid, type: 'train' },
      (a) => (a.train_log?.train_metrics?.Epoch ?? 0) >= epoch,
      50,
    );
    return tid;
  }

  it('kill -9 of a host in mid-epoch leaves the server answering and the task resumable', async () => {
    const tid = await training(2);
    const victims = hosts(server.child.pid ?? 0);
    assert.ok(victims.length >= 1, 'a compute host is running');
    for (const victim of victims) process.kill(victim, 'SIGKILL');
    const ended = await server.until(
      60,
      'GET',
      '/project/task',
      { tid, resume: '' },
      (a) => a.task_status !== 3 || a.message?.includes('resum'),
    );
    if (ended.task_status === 10) {
      assert.match(ended.message, /SIGKILL|killed|signal/i, 'the true reason is told');
      assert.equal(ended.resumable, true);
      await server.ok('PUT', '/project/task/train', { tid, act: 'resume', epoch: ended.max_saved_epochs });
    }
    const done = await server.until(180, 'GET', '/project/task', { tid }, (a) => a.task_status !== 3, 200);
    assert.equal(done.task_status, 4, JSON.stringify(done));
  });

  it('promise 16: kill -9 of the server in mid-training: the restarted server resumes it and no host is left over', async () => {
    const tid = await training(2);
    const left = hosts(server.child.pid ?? 0);
    await server.stop('SIGKILL');
    const again = await TestServer.start({ folder: server.folder });
    server = again;
    const done = await server.until(240, 'GET', '/project/task', { tid }, (a) => a.task_status !== 3, 200);
    assert.equal(done.task_status, 4, JSON.stringify(done));
    for (const host of left) {
      const gone = !existsSync(`/proc/${host}`) || readFileSync(`/proc/${host}/stat`, 'utf8').includes(') Z ');
      assert.ok(gone, `host ${host} of the killed server ended`);
    }
    const log = readFileSync(join(server.workspace, `projects/${pid}/${tid}/out.log`), 'utf8');
    const epochs = [...log.matchAll(/\[EVAL\] Finished, Epoch=(\d+)/g)].map((match) => Number(match[1]));
    assert.deepEqual([...new Set(epochs)], [1, 2, 3, 4], 'no epoch is lost or skipped');
  });

  it('SIGTERM ends in order within 10 s and the task goes on after the next start', async () => {
    const tid = await training(1);
    const begin = Date.now();
    const code = await server.stop();
    assert.equal(code, 0);
    assert.ok(Date.now() - begin < 10_000, `took ${Date.now() - begin} ms`);
    await sleep(200);
    server = await TestServer.start({ folder: server.folder });
    const done = await server.until(240, 'GET', '/project/task', { tid }, (a) => a.task_status !== 3, 200);
    assert.equal(done.task_status, 4, JSON.stringify(done));
  });

  it('tasks started at once queue for the device and say so', async () => {
    const tids: string[] = [];
    for (let i = 0; i < 3; i += 1)
      tids.push((await server.ok('POST', '/project/task', { pid, train: { ...params, num_epochs: 1 } })).tid);
    for (const tid of tids) await server.ok('POST', '/project/task/train', { tid });
    const last = await server.ok('GET', '/project/task', { tid: tids[2] });
    assert.equal(last.task_status, 3);
    assert.match(last.message, /queue|wait/i);
    for (const tid of tids) {
      const done = await server.until(240, 'GET', '/project/task', { tid }, (a) => a.task_status !== 3, 200);
      assert.equal(done.task_status, 4, JSON.stringify(done));
    }
  });

  it('leaves no process behind', async () => {
    const pidBefore = server.child.pid ?? 0;
    const group = hosts(pidBefore);
    await server.stop();
    await sleep(300);
    for (const host of group) assert.throws(() => execFileSync('kill', ['-0', `${host}`], { stdio: 'ignore' }));
  });
});
