import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { messages, writeCopy, writeFiles } from '../domain/import/testing/fixture.js';
import { openStore } from '../store/open.js';
import { silentLog } from '../store/testing/records.js';
import { main as importWorkspace } from './import-workspace.js';
import { size } from './terminal.js';
import { main as weights } from './weights.js';

const base = await mkdtemp(join(tmpdir(), 'oarlock-cli-'));
after(() => rm(base, { recursive: true, force: true }));
const folder = join(base, 'weights');
const env = { OARLOCK_WEIGHTS_DIR: folder };

function terminal() {
  const said: string[] = [];
  return {
    said,
    out: (line: string) => said.push(line),
    err: (line: string) => said.push(`! ${line}`),
    progress() {},
    progressEnd() {},
  };
}

async function run(
  tool: (screen: ReturnType<typeof terminal>) => Promise<number>,
): Promise<{ code: number; text: string }> {
  const screen = terminal();
  const code = await tool(screen);
  return { code, text: screen.said.join('\n') };
}
const w = (...argv: string[]) => run((screen) => weights(argv, screen, env));

const header = Buffer.from(JSON.stringify({ w: { dtype: 'F32', shape: [1], data_offsets: [0, 4] } }));
const length = Buffer.alloc(8);
length.writeBigUInt64LE(BigInt(header.length));
const SAFETENSORS = Buffer.concat([length, header, Buffer.alloc(4)]);

test('weights: wrong command lines end with 2 and say what is right', async () => {
  const file = join(base, 'unknown.safetensors');
  await writeFile(file, SAFETENSORS);
  const table: [string[], RegExp][] = [
    [[], /Usage:/],
    [['eat'], /no command "eat"/],
    [['add'], /add takes one file/],
    [['list', 'x'], /list takes no file/],
    [['add', file], /does not tell its model[\s\S]*MobileNetV2/],
    [['add', file, '--model', 'NoNet'], /no model "NoNet"/],
    [['add', file, '--model', 'ResNet18', '--name', 'COCO'], /no pretrained weights "COCO"; it has IMAGENET/],
    [['add', file, '--model', 'ResNet18', '--backbone', 'x'], /no choice of backbones/],
    [['add', file, '--model', 'YOLOv3', '--backbone', 'x'], /it has DarkNet53/],
    [['add', file, '--colour'], /colour/],
  ];
  for (const [argv, text] of table) {
    const { code, text: said } = await w(...argv);
    assert.equal(code, 2, argv.join(' '));
    assert.match(said, text);
  }
  assert.deepEqual(await w('--help').then(({ code }) => code), 0);
});

test('weights: files that cannot be used end with 1', async () => {
  const none = await w('add', join(base, 'resnet18-00000000.pth'));
  assert.equal(none.code, 1);
  assert.match(none.text, /There is no file .*resnet18-00000000/);
  await writeFile(join(base, 'resnet18.pth'), '<html>an error page of a download</html>');
  const page = await w('add', join(base, 'resnet18.pth'));
  assert.equal(page.code, 1);
  assert.match(page.text, /web page[\s\S]*Use a \.safetensors/);
});

test('weights: add, list, verify, and the change that verify finds', async () => {
  assert.match((await w('list')).text, /No pretrained weights in .*npm run weights -- add FILE/);
  const file = join(base, 'resnet50-0676ba61.safetensors');
  await writeFile(file, SAFETENSORS);
  const added = await w('add', file);
  assert.equal(added.code, 0, added.text);
  assert.match(added.text, /Added ResNet50_IMAGENET \(safetensors, \d+ B\)[\s\S]*pretrain_weights "IMAGENET"/);
  await w('add', file, '--model', 'yolov3', '--backbone', 'MobileNetV1', '--name', 'coco');
  assert.match((await w('list')).text, /ResNet50_IMAGENET +safetensors[\s\S]*YOLOv3_MobileNetV1_COCO/);
  assert.deepEqual(await w('verify').then(({ code, text }) => [code, text]), [
    0,
    'ResNet50_IMAGENET: ok\nYOLOv3_MobileNetV1_COCO: ok',
  ]);
  const changed = Buffer.from(SAFETENSORS);
  changed[changed.length - 1] = 1;
  await writeFile(join(folder, 'ResNet50_IMAGENET/model.safetensors'), changed);
  const bad = await w('verify');
  assert.equal(bad.code, 1);
  assert.match(bad.text, /ResNet50_IMAGENET: CHANGED[\s\S]*1 of 2 cannot be trusted/);
  const pretrain = join(base, 'ws/pretrain/ResNet18_IMAGENET');
  await mkdir(pretrain, { recursive: true });
  await writeFile(join(pretrain, 'model.safetensors'), SAFETENSORS);
  assert.match((await w('list', '--workspace_dir', join(base, 'ws'))).text, /ResNet18_IMAGENET/);
});

test('import-workspace: wrong folders and workspaces in use are refused, nothing is written', async () => {
  assert.equal((await run((screen) => importWorkspace([], screen))).code, 2);
  const none = await run((screen) => importWorkspace([join(base, 'absent')], screen));
  assert.equal(none.code, 1);
  assert.match(none.text, /no PaddleX workspace[\s\S]*--workspace_dir/);
  const used = join(base, 'used');
  await writeCopy(used, 'stable', messages());
  const opened = await openStore({ workspace: used, log: silentLog });
  const busy = await run((screen) => importWorkspace([used], screen));
  await opened.close();
  assert.equal(busy.code, 1);
  assert.doesNotMatch(busy.text, /\n\s+at /, 'no stack');
});

test('import-workspace: the command itself, twice', async () => {
  const root = join(base, '旧 工作区');
  await writeFiles(root);
  await writeCopy(root, 'stable', messages());
  const before = await readFile(join(root, 'workspace.stable.pb'));
  const tool = fileURLToPath(new URL('./import-workspace.js', import.meta.url));
  const call = () =>
    new Promise<{ code: number | null; out: string; err: string }>((resolve) => {
      execFile(process.execPath, [tool, root], (error, out, err) =>
        resolve({ code: (error?.code as number | undefined) ?? 0, out, err }),
      );
    });
  const first = await call();
  assert.equal(first.code, 0, first.err);
  assert.equal(
    first.out,
    'Taken over from workspace.stable.pb: 2 datasets, 2 projects, 3 tasks, 1 pretrained model, 1 exported model.\n',
  );
  assert.match(first.err, /Note: The folder of exported model EM0003 is gone/);
  const second = await call();
  assert.equal(second.out, 'Nothing new in workspace.stable.pb. 9 were here already.\n');
  assert.deepEqual(await readFile(join(root, 'workspace.stable.pb')), before);
});

test('sizes for people', () => {
  assert.deepEqual([0, 999, 1000, 12_345_678, 5e12].map(size), ['0 B', '999 B', '1.0 kB', '12.3 MB', '5.0 TB']);
});
