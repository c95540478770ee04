import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { cp, mkdir, mkdtemp, readdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { png } from '../../../test/lib/pictures.js';
import { type OpenedStore, openStore } from '../../store/open.js';
import { silentLog } from '../../store/testing/records.js';
import { DatasetStatus, PredictStatus, PretrainedModelStatus, PruneStatus, TaskStatus } from '../enums.js';
import { OarlockError } from '../errors.js';
import type { Repository } from '../repository.js';
import { importWorkspace, isPaddlexWorkspace, wasImported } from './index.js';
import { decode, encode } from './proto.js';
import { messages, realLight, writeCopy, writeFiles } from './testing/fixture.js';
import { PADDLEX_BYTES } from './testing/paddlex-bytes.js';

const base = await mkdtemp(join(tmpdir(), 'oarlock-import-'));
const stores: OpenedStore[] = [];
after(async () => {
  for (const opened of stores) await opened.close();
  await rm(base, { recursive: true, force: true });
});
const light = await realLight();
let made = 0;

/** A moved workspace with Chinese characters and a space in its new path. */
async function workspace(): Promise<string> {
  const root = join(base, `搬家 ${made++}`);
  await writeFiles(root);
  return root;
}

async function store(root: string): Promise<Repository> {
  const opened = await openStore({ workspace: root, log: silentLog });
  stores.push(opened);
  return opened.store;
}

const fails = (code: string, text: RegExp) => (error: unknown) => {
  assert.ok(error instanceof OarlockError, String(error));
  assert.equal(error.code, code, error.message);
  assert.match(error.message, text);
  return true;
};

test('a folder that is no PaddleX workspace, and one that is damaged beyond its copies, are refused', async () => {
  const empty = join(base, 'empty');
  await mkdir(empty);
  assert.equal(await isPaddlexWorkspace(empty), false);
  await assert.rejects(importWorkspace(empty, {} as Repository, light), fails('not_found', /no PaddleX workspace/));
  for (const copy of ['newest', 'stable', 'bak'] as const)
    await writeCopy(empty, copy, Buffer.from('this is no protobuf'));
  assert.equal(await isPaddlexWorkspace(empty), true);
  await assert.rejects(
    importWorkspace(empty, {} as Repository, light),
    fails('invalid_argument', /newest.*|stable.*damaged/),
  );
});

test('a torn newest file: the stable copy counts', async () => {
  const root = await workspace();
  const whole = encode('Workspace', messages());
  await writeCopy(root, 'newest', whole.subarray(0, whole.length - 7));
  await writeFile(join(root, '.pb.success'), '');
  await writeCopy(root, 'stable', messages());
  await writeCopy(root, 'bak', { ...messages(), tasks: {} });
  const report = await importWorkspace(root, await store(root), light);
  assert.equal(report.from, 'workspace.stable.pb');
  assert.match(report.warnings.join('\n'), /workspace\.newest\.pb is damaged/);
  assert.deepEqual(report.added, { dataset: 2, project: 2, task: 3, pretrained: 1, exported: 1 });
});

test('without its flag the newest file is only the last resort', async () => {
  const root = await workspace();
  await writeCopy(root, 'newest', { ...messages(), tasks: {} });
  await writeCopy(root, 'stable', messages());
  const report = await importWorkspace(root, await store(root), light);
  assert.equal(report.from, 'workspace.stable.pb');
  await rm(join(root, 'workspace.stable.pb'));
  await rm(join(root, '.oarlock'), { recursive: true, force: true });
  const again = await importWorkspace(root, await store(await copyOf(root)), light);
  assert.equal(again.from, 'workspace.newest.pb');
});

async function copyOf(root: string): Promise<string> {
  const copy = join(base, `copy ${made++}`);
  await cp(root, copy, { recursive: true });
  return copy;
}

test('an empty file beside info.pb files: records are put together from the folders, datasets without record adopted', async () => {
  const root = await workspace();
  const all = messages();
  await writeCopy(root, 'newest', { version: '0.1.0', path: '/somewhere' });
  await writeFile(join(root, '.pb.success'), '');
  for (const [name, record, folder] of [
    ['Project', all.projects.P0001, 'projects/P0001'],
    ['Task', all.tasks.T0001, 'projects/P0001/T0001'],
  ] as const) {
    await writeFile(join(root, folder, 'info.pb'), encode(name, record as never));
  }
  await mkdir(join(root, 'projects/P0009'));
  await writeFile(join(root, 'projects/P0009/info.pb'), 'damaged');
  const db = await store(root);
  const report = await importWorkspace(root, db, light);
  assert.equal(report.from, 'info.pb');
  assert.deepEqual(report.added, { dataset: 1, project: 1, task: 1, pretrained: 0, exported: 0 });
  assert.equal(db.get('dataset', 'D0001')?.type, 'classification');
  assert.equal(db.get('dataset', 'D0001')?.status, DatasetStatus.XSPLITED);
  assert.match(report.warnings.join('\n'), /D0001 has no record and is adopted/);
  assert.match(report.warnings.join('\n'), /P0009\/info\.pb is damaged/);
  // Folder names count for the counters: P0009 was used, T0003 lies there without a record.
  assert.equal(await db.change((tx) => tx.nextId('project')), 'P0010');
  assert.equal(await db.change((tx) => tx.nextId('task')), 'T0004');
});

test('records that point outside, links out of the workspace and odd ids are left out with a warning', async () => {
  const root = await workspace();
  const outside = join(base, `outside ${made++}`);
  await mkdir(join(outside, 'T0002'), { recursive: true });
  await rm(join(root, 'projects/P0001/T0002'), { recursive: true });
  await symlink(join(outside, 'T0002'), join(root, 'projects/P0001/T0002'));
  const all = messages();
  const twin = `${root}_evil/datasets/D0003`;
  await writeCopy(root, 'stable', {
    ...all,
    datasets: {
      ...all.datasets,
      D0003: { ...(all.datasets.D0001 as never as object), id: 'D0003', path: twin } as never,
      D0004: {
        ...(all.datasets.D0001 as never as object),
        id: 'D0004',
        path: `${all.path}/datasets/../../../etc`,
      } as never,
      '../../x': { ...(all.datasets.D0001 as never as object), id: '../../x' } as never,
      D0005: { ...(all.datasets.D0001 as never as object), id: 'D0005', type: 'poetry' } as never,
    },
  });
  const db = await store(root);
  const report = await importWorkspace(root, db, light);
  assert.deepEqual(
    db.list('dataset').map(({ id }) => id),
    ['D0001', 'D0002'],
  );
  assert.deepEqual(
    db.list('task').map(({ id }) => id),
    ['T0001', 'T0003'],
  );
  const told = report.warnings.join('\n');
  for (const text of [
    /D0003 lies outside/,
    /D0004 lies outside/,
    /T0002 lies outside/,
    /id "\.\.\/\.\.\/x" is left out/,
    /unknown type "poetry"/,
  ]) {
    assert.match(told, text);
  }
});

test('promise 3: a pickle that names a function is not executed; its record is kept with defaults', async () => {
  const root = await workspace();
  await writeCopy(root, 'stable', messages());
  await writeFile(join(root, 'projects/P0001/T0001/params.pkl'), PADDLEX_BYTES.evil);
  await writeFile(join(root, 'projects/P0001/T0001/eval_res.pkl'), PADDLEX_BYTES.evil);
  const db = await store(root);
  const report = await importWorkspace(root, db, light);
  assert.match(report.warnings.join('\n'), /params\.pkl cannot be read.*posix/);
  assert.equal(db.get('task', 'T0001')?.params.model, 'MobileNetV2');
  assert.equal(db.get('sidejob', 'T0001/evaluate')?.status, TaskStatus.XEVALUATEFAIL);
  assert.equal((await readdir('/tmp')).includes('oarlock-evil-pickle'), false);
  assert.equal(await readdir('/tmp/oarlock-evil-pickle').catch(() => 'absent'), 'absent');
});

test('lost statistics of a classification set are made again from its lists or folders', async () => {
  const root = await workspace();
  await writeCopy(root, 'stable', messages());
  const set = join(root, 'datasets/D0001');
  await rm(join(set, 'statis.pkl'));
  await writeFile(join(set, 'labels.txt'), '\uFEFFrose\r\n郁金香\r\nnever\r\n');
  await writeFile(join(set, 'train_list.txt'), 'rose/1.jpg 0\n郁金香/a b.jpg 1\nbroken line\n');
  await writeFile(join(set, 'val_list.txt'), 'rose\\2.jpg 0\n');
  const db = await store(root);
  await importWorkspace(root, db, light);
  assert.deepEqual(db.get('dataset', 'D0001')?.counts, { labels: 3, train: 2, val: 1, test: 0 });
  const details = JSON.parse(await readFile(join(set, 'statis.json'), 'utf8'));
  assert.deepEqual(details.class_train_file_list, { rose: ['rose/1.jpg'], 郁金香: ['郁金香/a b.jpg'], never: [] });
  assert.deepEqual(details.val_files, ['rose/2.jpg']);

  const unsplit = await workspace();
  await writeCopy(unsplit, 'stable', messages());
  await rm(join(unsplit, 'datasets/D0001/statis.pkl'));
  const db2 = await store(unsplit);
  await importWorkspace(unsplit, db2, light);
  assert.equal(db2.get('dataset', 'D0001')?.status, DatasetStatus.XCOPYDONE);
  assert.deepEqual(db2.get('dataset', 'D0001')?.counts, { labels: 2, train: 0, val: 0, test: 0 });
});

test('lost statistics of the other types are read again from their folders', async () => {
  const root = await workspace();
  const old = messages();
  const [first] = Object.values(old.datasets ?? {});
  assert.ok(first);
  first.type = 'detection';
  await writeCopy(root, 'stable', old);
  const set = join(root, 'datasets/D0001');
  await rm(set, { recursive: true });
  for (const [folder, name, content] of [
    ['JPEGImages', 'a.png', png(20, 10, 3, new Uint8Array(600))],
    [
      'Annotations',
      'a.xml',
      '<a><object><name>nut</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></a>',
    ],
    ['', 'XCOPYDONE', ''],
  ] as const) {
    await mkdir(join(set, folder), { recursive: true });
    await writeFile(join(set, folder, name), content);
  }
  const db = await store(root);
  await importWorkspace(root, db, light);
  assert.equal(db.get('dataset', 'D0001')?.status, DatasetStatus.XCOPYDONE);
  const details = JSON.parse(await readFile(join(set, 'statis.json'), 'utf8'));
  assert.deepEqual(details.label_info, { nut: ['JPEGImages/a.png'] });
});

test('folders that are gone do not lose the records', async () => {
  const root = await workspace();
  await writeCopy(root, 'stable', messages());
  await rm(join(root, 'datasets/D0001'), { recursive: true });
  await rm(join(root, 'projects/P0001/T0001'), { recursive: true });
  const db = await store(root);
  const report = await importWorkspace(root, db, light);
  assert.equal(db.get('dataset', 'D0001')?.status, DatasetStatus.XCHECKFAIL);
  assert.equal(db.get('dataset', 'D0001')?.path, join(root, 'datasets/D0001'));
  assert.equal(db.get('task', 'T0001')?.status, TaskStatus.XINIT);
  assert.match(report.warnings.join('\n'), /folder of dataset D0001 is gone/);
});

test('a moved workspace appears whole: paths, names, states, parameters, reports, curves', async () => {
  const root = await workspace();
  await writeCopy(root, 'newest', messages());
  await writeFile(join(root, '.pb.success'), '');
  const db = await store(root);
  const before = await fingerprint(root);
  assert.equal(await wasImported(root), false);
  const report = await importWorkspace(root, db, light);
  assert.equal(await wasImported(root), true, 'a later start does not bring back what is deleted from now on');
  const expectedWarnings = [/exported model EM0003 is gone/, /T0003: UNet has no pretrained weights/];
  for (const warning of report.warnings)
    assert.ok(
      expectedWarnings.some((known) => known.test(warning)),
      warning,
    );

  const dataset = db.get('dataset', 'D0001');
  assert.equal(dataset?.name, '花 卉');
  assert.equal(dataset?.path, join(root, 'datasets/D0001'));
  assert.equal(dataset?.status, DatasetStatus.XSPLITED);
  assert.deepEqual(dataset?.counts, { labels: 3, train: 2, val: 1, test: 1 });
  const details = JSON.parse(await readFile(join(root, 'datasets/D0001/statis.json'), 'utf8'));
  assert.deepEqual(details.class_val_file_list, { rose: ['rose/2.jpg'], 郁金香: [], empty: [] });
  assert.equal(db.get('dataset', 'D0002')?.status, DatasetStatus.XCOPYFAIL);
  assert.match(db.get('dataset', 'D0002')?.message ?? '', /Import the dataset again/);

  assert.equal(db.get('project', 'P0001')?.did, 'D0001');
  assert.equal(db.get('project', 'P0002')?.type, 'segmentation');
  assert.equal(db.get('project', 'P0002')?.remote, true);

  const task = db.get('task', 'T0001');
  assert.equal(task?.path, join(root, 'projects/P0001/T0001'));
  assert.equal(task?.status, TaskStatus.XTRAINEXIT);
  assert.equal(task?.message, 'True');
  assert.equal(task?.params.model, 'ResNet50_vd_ssld');
  assert.equal(task?.params.batch_size, 16);
  assert.equal(task?.params.saturation, false);
  assert.equal(task?.params.learning_rate, 0.00625);
  assert.equal(db.get('task', 'T0002')?.status, TaskStatus.XTRAINEXIT, 'its worker is gone');
  assert.equal(db.get('task', 'T0002')?.parent_id, 'T0001');
  assert.equal(db.get('task', 'T0003')?.status, TaskStatus.XINIT, 'the newer status file counts');
  assert.equal(db.get('task', 'T0003')?.params.model, 'UNet');

  const training = db.get('training', 'T0001');
  assert.deepEqual(training?.train_metrics, { Epoch: 2, Step: 2, loss: 0.4, acc1: 0.9, acc2: 1, lr: 0.00625 });
  assert.deepEqual(training?.eval_metrics, { Epoch: 2, acc1: 0.75, acc2: 1 });
  assert.deepEqual(training?.epochs, { '1': { acc1: 0.8, acc2: 1 }, '2': { acc1: 0.75, acc2: 1 } });
  assert.equal(training?.best_epoch, 1);
  assert.deepEqual(training?.best_metrics, { acc1: 0.8, acc2: 1 });
  assert.equal(training?.num_epochs, 10);
  assert.equal(training?.running_seconds, 480);
  const curve = db.curve('T0001');
  assert.deepEqual(
    curve.filter(({ series }) => series === 'train').map(({ x, values }) => [x, values.loss]),
    [
      [2, 0.9],
      [4, null],
      [6, 0.4],
    ],
    'a step that was trained twice counts once',
  );
  assert.deepEqual(
    curve.filter(({ series }) => series === 'eval').map(({ x, values }) => [x, values.acc1]),
    [
      [1, 0.8],
      [2, 0.75],
    ],
  );

  const evaluate = db.get('sidejob', 'T0001/evaluate');
  assert.equal(evaluate?.status, TaskStatus.XEVALUATED);
  const result = evaluate?.result as {
    Confusion_Matrix: number[][];
    PRF1: Record<string, { precision: number }>;
    PRF1_average: { over_all: { F1: number } };
  };
  assert.deepEqual(result.Confusion_Matrix, [
    [1, 0],
    [1, 0],
  ]);
  assert.equal(result.PRF1.郁金香?.precision, 0, 'never predicted: 0, not NaN');
  assert.ok(Math.abs(result.PRF1_average.over_all.F1 - 1 / 3) < 1e-6);
  assert.equal(db.get('sidejob', 'T0001/predict')?.status, PredictStatus.XPREFAIL);
  assert.deepEqual([db.get('sidejob', 'T0001/predict')?.done, db.get('sidejob', 'T0001/predict')?.total], [1, 5]);
  assert.equal(db.get('sidejob', 'T0001/prune')?.status, PruneStatus.XSPRUNEDONE);
  assert.deepEqual(db.get('sidejob', 'T0001/prune')?.result, {
    sensitivities_loss_img: { '0.0213': 0.05, '0.118': 0.15 },
    sensitivities: null,
  });

  const saved = db.get('pretrained', 'PM0001');
  assert.equal(saved?.status, PretrainedModelStatus.XPSAVEDONE);
  assert.equal(saved?.path, join(root, 'pretrain/PM0001'));
  assert.deepEqual(saved?.dataset_attr, {
    name: '花',
    desc: 'flowers',
    labels: ['rose', '郁金香', 'empty'],
    train_num: 2,
    val_num: 1,
    test_num: 1,
  });
  assert.deepEqual(saved?.task_params.pid, 'P0001');
  assert.equal(db.get('exported', 'EM0003')?.path, '/export/lite');
  assert.equal(db.get('exported', 'EM0003')?.exported_type, 1);

  // Counters go on where PaddleX was.
  assert.equal(await db.change((tx) => tx.nextId('dataset')), 'D0008');
  assert.equal(await db.change((tx) => tx.nextId('task')), 'T0013');
  assert.equal(await db.change((tx) => tx.nextId('exported')), 'EM0004');

  // The old server can still open the folder: none of its files changed.
  const now = await fingerprint(root);
  for (const [path, sum] of before) assert.equal(now.get(path), sum, path);

  // Once more: nothing twice, nothing lost that was changed since.
  await db.change((tx) => {
    const own = tx.get('task', 'T0001');
    if (own !== undefined) tx.put('task', { ...own, desc: 'edited' });
    tx.remove('dataset', 'D0002');
  });
  const again = await importWorkspace(root, db, light);
  assert.deepEqual(again.added, { dataset: 1, project: 0, task: 0, pretrained: 0, exported: 0 });
  assert.equal(again.known, 8);
  assert.equal(db.get('task', 'T0001')?.desc, 'edited');
  assert.equal(db.curve('T0001').length, curve.length);
});

/** Sums of every file that PaddleX owns. */
async function fingerprint(root: string): Promise<Map<string, string>> {
  const sums = new Map<string, string>();
  for (const entry of await readdir(root, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (!entry.isFile() || /\.json$|\.oarlock/.test(path)) continue;
    sums.set(
      path,
      createHash('sha256')
        .update(await readFile(path))
        .digest('hex'),
    );
  }
  return sums;
}

test('a workspace moved again, with records under its first root, is still understood', async () => {
  const root = await workspace();
  const all = messages();
  await writeCopy(root, 'stable', { ...all, path: '/second/root' });
  const moved = join(base, `moved ${made++}`);
  await rename(root, moved);
  const db = await store(moved);
  const report = await importWorkspace(moved, db, light);
  assert.equal(report.added.task, 3);
  assert.equal(db.get('task', 'T0001')?.path, join(moved, 'projects/P0001/T0001'));
});

test('bytes that Google’s protobuf runtime wrote are read field by field', () => {
  const read = decode('Workspace', PADDLEX_BYTES.workspacePb);
  assert.equal(read.version, '0.2.0');
  assert.equal(read.path, '/home/old/工作区');
  assert.deepEqual(read.datasets.D0001, {
    id: 'D0001',
    name: '花',
    desc: 'flowers',
    type: 'classification',
    path: '/home/old/工作区/datasets/D0001',
    create_time: '2024-05-02 10:30:00',
  });
  assert.equal(read.projects.P0001?.did, 'D0001');
  assert.equal(read.tasks.T0001?.parent_id, '');
  assert.equal(read.exported_models.EM0001?.exported_type, 1);
  assert.deepEqual(
    [read.max_dataset_id, read.max_project_id, read.max_task_id, read.max_exported_model_id],
    [7, 3, 12, 1],
  );
  assert.deepEqual(decode('Workspace', encode('Workspace', messages())), messages());
});
