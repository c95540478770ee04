import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { create } from 'tar';
import { Demo } from './demo.js';
import { DatasetStatus, DownloadStatus } from './enums.js';
import { OarlockError } from './errors.js';
import type { Mirror } from './mirror.js';
import { DETAILS, Harness, quietLog } from './testing/harness.js';

const base = await mkdtemp(join(tmpdir(), 'oarlock-demo-'));
after(() => rm(base, { recursive: true, force: true }));

const PARAMS = {
  dataset_info: { name: '蔬菜', desc: 'vegetables', dataset_type: 'classification' },
  project_info: { name: '蔬菜分类', desc: '', project_type: 'classification' },
  train_params: { model: 'ResNet18', num_epochs: 7, batch_size: 2, pretrain_weights: 'IMAGENET', nonsense: 1 },
};

/** The set as a folder `vegetables_cls`, and as archives beside it. */
async function makeSet(name: string, params: unknown = PARAMS): Promise<string> {
  const folder = join(base, name);
  const set = join(folder, 'vegetables_cls');
  for (const label of ['tomato', '黄瓜']) {
    await mkdir(join(set, label), { recursive: true });
    await writeFile(join(set, label, '1 a.jpg'), `jpeg of ${label}`);
  }
  if (params !== null) await writeFile(join(set, 'vegetables_cls_params.json'), JSON.stringify(params));
  await create({ cwd: folder, gzip: true, file: join(folder, 'vegetables_cls.tar.gz') }, ['vegetables_cls']);
  return folder;
}
const archives = await makeSet('archives');
await rm(join(archives, 'vegetables_cls'), { recursive: true });

const fails = (code: string, text: RegExp) => (error: unknown) => {
  assert.ok(error instanceof OarlockError, String(error));
  assert.equal(error.code, code, error.message);
  assert.match(error.message, text);
  return true;
};

const settled = (harness: Harness) =>
  harness.until(() => {
    const { status } = harness.services.demo.state('classification');
    return status !== DownloadStatus.XDDOWNLOADING && status !== DownloadStatus.XDDOWNLOADDONE;
  });

test('without a source the download fails with what to do, and the progress stays a number', async (t) => {
  const { services, until } = await Harness.start(t);
  const { demo } = services;
  assert.deepEqual(demo.state('classification'), { status: null, progress: 0, message: '' });
  await assert.rejects(demo.load('classification'), fails('not_ready', /not downloaded/));
  await demo.download('classification');
  await until(() => demo.state('classification').status === DownloadStatus.XDDOWNLOADFAIL);
  const state = demo.state('classification');
  assert.equal(state.progress, 0);
  assert.match(state.message, /No source of demos is configured.*--demo_dir/);
  await demo.stop('classification');
});

test('a demo folder without this set, damaged archives and sets without parameters say so', async (t) => {
  const folder = join(base, 'damaged');
  await mkdir(folder);
  const harness = await Harness.start(t, { demoDir: folder });
  const { demo } = harness.services;
  await demo.download('classification');
  await settled(harness);
  assert.match(demo.state('classification').message, /demo folder has no vegetables_cls\.tar\.gz/);

  await writeFile(
    join(folder, 'vegetables_cls.tar.gz'),
    (await readFile(join(archives, 'vegetables_cls.tar.gz'))).subarray(0, 100),
  );
  await demo.download('classification');
  await settled(harness);
  assert.match(demo.state('classification').message, /damaged/);

  await rm(join(folder, 'vegetables_cls.tar.gz'));
  await mkdir(join(folder, 'other'));
  await create({ cwd: folder, gzip: true, file: join(folder, 'vegetables_cls.tgz') }, ['other']);
  await demo.download('classification');
  await settled(harness);
  assert.match(demo.state('classification').message, /no folder vegetables_cls/);
  const left = await readdir(join(harness.config.workspace, 'demo_datasets/classification'));
  assert.deepEqual(left, [], 'nothing half-made is left');

  for (const [params, text] of [
    [null, /no vegetables_cls_params/],
    [{ dataset_info: {} }, /dataset_info or project_info/],
    [{ ...PARAMS, dataset_info: { ...PARAMS.dataset_info, dataset_type: 'detection' } }, /for detection/],
    [{ ...PARAMS, project_info: { project_type: 'classification' } }, /name is missing/],
    [{ ...PARAMS, train_params: { batch_size: -1 } }, /batch_size/],
  ] as const) {
    await rm(join(harness.config.workspace, 'demo_datasets'), { recursive: true, force: true });
    await rm(folder, { recursive: true });
    await cp(await makeSet(`params ${String(text)}`, params), folder, { recursive: true });
    await demo.download('classification');
    await settled(harness);
    await assert.rejects(demo.load('classification'), fails('invalid_argument', text), String(text));
    assert.deepEqual(harness.services.datasets.list(), [], 'nothing is left of a failed load');
    assert.deepEqual(harness.services.projects.list(), []);
  }
});

async function imported(harness: Harness, did: string): Promise<void> {
  const job = harness.compute.job(`${did}/import`);
  harness.writeDetails(harness.services.datasets.get(did).path);
  job.end({ type: 'import', details: { ...DETAILS }, split: false, files: 2, warnings: [] });
  await harness.until(() => harness.services.datasets.get(did).status === DatasetStatus.XCOPYDONE);
}

test('from an archive to dataset, project, binding and task; names that are taken are not loaded twice', async (t) => {
  const harness = await Harness.start(t, { demoDir: archives });
  const { demo, datasets, projects, tasks } = harness.services;
  await demo.download('classification');
  await demo.download('classification');
  await settled(harness);
  assert.deepEqual(demo.state('classification'), { status: DownloadStatus.XDDECOMPRESSED, progress: 100, message: '' });
  const place = join(harness.config.workspace, 'demo_datasets/classification/vegetables_cls');
  assert.equal(await readFile(join(place, '黄瓜/1 a.jpg'), 'utf8'), 'jpeg of 黄瓜');
  await demo.download('classification'); // done already: nothing happens
  assert.equal(demo.state('classification').status, DownloadStatus.XDDECOMPRESSED);

  const loaded = await demo.load('classification');
  assert.ok('did' in loaded);
  assert.equal(datasets.get(loaded.did).name, '蔬菜');
  assert.equal(datasets.get(loaded.did).source, place);
  assert.equal(projects.get(loaded.pid).did, loaded.did);
  const [task] = tasks.list(loaded.pid);
  assert.deepEqual([task?.params.model, task?.params.num_epochs, task?.params.pretrain_weights], ['ResNet18', 7, null]);
  assert.deepEqual(await demo.load('classification'), { loading_status: 'dataset already exists' });

  // A finished load is the user's and survives the stop.
  await imported(harness, loaded.did);
  await demo.stop('classification');
  assert.equal(datasets.get(loaded.did).status, DatasetStatus.XCOPYDONE);
  assert.equal(demo.state('classification').status, DownloadStatus.XDDECOMPRESSED);
  await projects.delete(loaded.pid);
  await assert.rejects(async () => projects.get(loaded.pid), fails('not_found', /project/));
});

test('stopping takes an unfinished load back', async (t) => {
  const harness = await Harness.start(t, { demoDir: archives });
  const { demo, datasets, projects } = harness.services;
  await demo.download('classification');
  await settled(harness);
  await demo.load('classification');
  await demo.stop('classification');
  assert.deepEqual([datasets.list(), projects.list()], [[], []]);
  assert.ok('did' in (await demo.load('classification')), 'and it can be loaded again');
});

test('a project name that is taken; a type that is not downloaded', async (t) => {
  const harness = await Harness.start(t, { demoDir: archives });
  const { demo, projects, datasets } = harness.services;
  await demo.download('classification');
  await settled(harness);
  await projects.create({ name: '蔬菜分类', desc: '', type: 'classification' });
  assert.deepEqual(await demo.load('classification'), { loading_status: 'project already exists' });
  assert.deepEqual(datasets.list(), []);
  await assert.rejects(demo.load('detection'), fails('not_ready', /detection demo is not downloaded/));
});

test('an unpacked folder is a source too; its links are left out', async (t) => {
  const folder = await makeSet('unpacked');
  await rm(join(folder, 'vegetables_cls.tar.gz'));
  await symlink('/etc/passwd', join(folder, 'vegetables_cls', 'tomato', 'passwd.jpg'));
  const harness = await Harness.start(t, { demoDir: folder });
  await harness.services.demo.download('classification');
  await settled(harness);
  const place = join(harness.config.workspace, 'demo_datasets/classification/vegetables_cls');
  assert.deepEqual(await readdir(join(place, 'tomato')), ['1 a.jpg']);
});

test('promise 9: a mirror is asked only when configured; its download shows progress and can be stopped', async (t) => {
  const harness = await Harness.start(t);
  const bytes = await readFile(join(archives, 'vegetables_cls.tar.gz'));
  const sum = createHash('sha256').update(bytes).digest('hex');
  let go: () => void = () => {};
  const gate = new Promise<void>((resolve) => {
    go = resolve;
  });
  const mirror = {
    sums: async () => new Map([['vegetables_cls.tar.gz', sum]]),
    async download(
      _name: string,
      dest: string,
      expected: string,
      { signal, onProgress }: { signal: AbortSignal; onProgress(p: object): void },
    ) {
      assert.equal(expected, sum);
      onProgress({ downloaded: 372, total: 1000, bytesPerSecond: 1 });
      await Promise.race([gate, new Promise((_, fail) => signal.addEventListener('abort', () => fail(signal.reason)))]);
      await writeFile(dest, bytes);
    },
  } as unknown as Mirror;
  const { services } = harness;
  const context = {
    ...services,
    config: { workspace: harness.config.workspace, threads: 0, maxImageBytes: 0 },
    log: quietLog,
    requireSpace: async () => {},
  };
  const demo = new Demo(context as never, services, { demoDir: null, mirror });
  await demo.download('classification');
  await harness.until(() => demo.state('classification').progress === 37.2);
  assert.equal(demo.state('classification').status, DownloadStatus.XDDOWNLOADING);
  await demo.stop('classification');
  assert.deepEqual(demo.state('classification'), { status: null, progress: 0, message: 'The download was stopped.' });
  assert.deepEqual(await readdir(join(harness.config.workspace, 'demo_datasets/classification')), []);
  go();
  await demo.download('classification');
  await harness.until(() => demo.state('classification').status === DownloadStatus.XDDECOMPRESSED);
  assert.deepEqual(await readdir(join(harness.config.workspace, 'demo_datasets/classification')), ['vegetables_cls']);
  const told = harness.events
    .filter(({ type }) => type === 'demo')
    .map(({ data }) => data as { status: number | null; progress: number });
  assert.ok(told.every(({ progress }) => Number.isFinite(progress)));
  assert.deepEqual([...new Set(told.map(({ status }) => status))], [0, null, 2, 3]);
});

test('a download that the end of the server cut off has failed, with a reason', async (t) => {
  const harness = await Harness.start(t);
  await harness.services.store.change((tx) =>
    tx.put('demo', { id: 'classification', status: DownloadStatus.XDDOWNLOADING, message: '' }),
  );
  await harness.crash();
  await harness.until(() => harness.services.demo.state('classification').status === DownloadStatus.XDDOWNLOADFAIL);
  assert.match(harness.services.demo.state('classification').message, /server ended/);
});
