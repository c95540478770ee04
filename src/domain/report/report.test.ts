import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import excel from 'exceljs';
import { writeReport } from './index.js';
import { layoutReport, MAX_MATRIX, Ratio } from './layout.js';

const folder = await mkdtemp(join(tmpdir(), 'oarlock-report-'));
after(() => rm(folder, { recursive: true, force: true }));

const CLASSIFICATION = {
  label_list: ['daisy', '=HYPERLINK("x")', '郁金香\u0001'],
  epoch: null,
  topk: 2,
  Confusion_Matrix: [
    [18, 1, 1],
    [0, 20, 0],
    [2, 0, 17],
  ],
  PRF1: {
    daisy: { precision: 0.9, recall: 0.900049, F1: 0.9, auc: 0.98112 },
    '=HYPERLINK("x")': { precision: -1, recall: -1.0, F1: null, auc: -1 },
    '郁金香\u0001': { precision: 1, recall: 0, F1: 0.5, auc: 1 },
  },
  PRF1_average: { over_all: { precision: 0.93214, recall: 0.932, F1: 0.932 } },
  Acc1: 0.932203,
  Acck: null,
};

test('a folder that is gone is an error and leaves nothing', async () => {
  await assert.rejects(writeReport(join(folder, 'none'), 'T0001', CLASSIFICATION), /ENOENT/);
});

test('a segmentation report: matrix of pixels, means, one row a class', () => {
  const rows = layoutReport({
    label_list: ['background', 'disc'],
    epoch: null,
    Confusion_Matrix: [
      [251034, 812],
      [640, 9658],
    ],
    Mean_IoU: 0.929,
    Mean_Acc: 0.99446,
    PRIoU: {
      background: { precision: 0.997, recall: 0.997, iou: 0.994 },
      disc: { precision: -1, recall: 0.938, iou: 0 },
    },
  });
  const text = rows.map((row) => row.map((cell) => (cell instanceof Ratio ? cell.value : cell)));
  assert.deepEqual(text.slice(0, 4), [
    ['混淆矩阵'],
    [null, '类别（Class）', 'background', 'disc'],
    [null, 'background', 251034, 812],
    [null, 'disc', 640, 9658],
  ]);
  const at = (title: string): number => text.findIndex(([first]) => first === title);
  assert.deepEqual(text[at('平均交并比（mIoU）') + 1], [null, 0.929]);
  assert.deepEqual(text[at('平均准确率（mAcc）') + 1], [null, 0.9945]);
  assert.deepEqual(text.slice(at('整体平均指标') + 1, at('整体平均指标') + 4), [
    [null, '类别（Class）', '精准率（Precision）', '召回率（Recall）', '交并比（IoU）'],
    [null, 'background', 0.997, 0.997, 0.994],
    [null, 'disc', 'nan', 0.938, 0],
  ]);
});

test('a detection report: matrix with background, thresholds, one row a class, curves', () => {
  const curve = { recall: Array.from({ length: 101 }, (_, i) => i * 0.01), precision: Array(101).fill(0.5), score: [] };
  const rows = layoutReport({
    label_list: ['nut', 'back_ground'],
    score_thresh: 0.5,
    overlap_thresh: 0.5,
    Confusion_Matrix: [
      [41, 1],
      [4, 0],
    ],
    mAP: null,
    PRAP: { nut: { precision: 0.911, recall: 0.93249, AP: null } },
    pr_curves: { nut: curve, bolt: null },
  });
  const text = rows.map((row) => row.map((cell) => (cell instanceof Ratio ? cell.value : cell)));
  const at = (title: string): number => text.findIndex(([first]) => first === title);
  assert.deepEqual(text[at('置信度阈值') + 1], [null, 0.5]);
  assert.deepEqual(text[at('混淆矩阵') + 3], [null, 'back_ground', 4, 0]);
  assert.deepEqual(text[at('平均精准率的均值（mAP）') + 1], [null, 'nan']);
  assert.deepEqual(text[at('整体检测评估结果') + 2], [null, 'nut', 0.911, 0.9325, 'nan']);
  const curves = at('精准率-召回率曲线');
  assert.deepEqual(text[curves + 1]?.slice(0, 4), [
    null,
    '类别（Class）',
    '召回率（Recall） 0',
    '召回率（Recall） 0.1',
  ]);
  assert.deepEqual(text[curves + 2], [null, 'nut', ...Array(11).fill(0.5)]);
  assert.deepEqual(text[curves + 3], [null, 'bolt', ...Array(11).fill('nan')]);
});

test('odd reports make odd sheets, not crashes', () => {
  for (const report of [
    {},
    { label_list: 3 },
    { Confusion_Matrix: [] },
    { Confusion_Matrix: [[1]], PRF1: {} },
    { x: { y: 'z' } },
    { pr_curves: { a: 3, b: { recall: 'x', precision: [1] } } },
  ]) {
    assert.ok(Array.isArray(layoutReport(report)));
  }
});

test('the spreadsheet read back: sheet, headings, matrix, nan, four decimals', async () => {
  const path = await writeReport(folder, 'T0001', CLASSIFICATION);
  assert.equal(path, join(folder, 'report-taskT0001.xls'));
  await writeReport(folder, 'T0001', CLASSIFICATION);
  assert.deepEqual(await readdir(folder), ['report-taskT0001.xls'], 'replaced, nothing temporary left');
  const book = new excel.Workbook();
  await book.xlsx.load((await readFile(path)).buffer as ArrayBuffer);
  const sheet = book.getWorksheet('评估报告');
  assert.ok(sheet !== undefined);
  const text = (address: string) => sheet.getCell(address).value;
  assert.equal(text('A1'), '混淆矩阵');
  assert.deepEqual(['B2', 'C2', 'D2', 'E2'].map(text), ['类别（Class）', 'daisy', '=HYPERLINK("x")', '郁金香']);
  assert.deepEqual(['B3', 'C3', 'D3', 'E3'].map(text), ['daisy', 18, 1, 1]);
  assert.deepEqual(['C5', 'D5', 'E5'].map(text), [2, 0, 17]);
  assert.equal(sheet.getCell('D2').type, excel.ValueType.String, 'a label is never a formula');
  assert.equal(text('A8'), '整体分类评估结果');
  assert.deepEqual(['B9', 'C9', 'D9', 'E9', 'F9'].map(text), [
    '类别（Class）',
    '精准率（Precision）',
    '召回率（Recall）',
    'F1-score',
    'Area Under Curve',
  ]);
  assert.deepEqual(['C10', 'D10', 'F10'].map(text), [0.9, 0.9, 0.9811]);
  assert.equal(sheet.getCell('F10').numFmt, '0.0000');
  assert.equal(text('C12'), 1);
  assert.equal(sheet.getCell('C12').numFmt, '0.0000', 'also for whole ratios');
  assert.deepEqual(['C11', 'D11', 'E11', 'F11'].map(text), ['nan', 'nan', 'nan', 'nan']);
  assert.equal(text('A15'), '整体平均指标');
  assert.equal(text('C17'), 0.9321);
  assert.equal(text('A20'), '预测Top1的准确率');
  assert.equal(text('B21'), 0.9322);
  assert.equal(text('A24'), '预测Top2的准确率');
  assert.equal(text('B25'), 'nan');
});

test('thousands of classes: the most frequent mistakes instead of a matrix of millions of cells', async () => {
  const n = 2000;
  const matrix = Array.from({ length: n }, (_, row) =>
    Array.from({ length: n }, (_, at) => (at === row ? 5 : Number(row === 7 && at === 9) * 3)),
  );
  const rows = layoutReport({ label_list: [], Confusion_Matrix: matrix });
  assert.ok(n > MAX_MATRIX && rows.length < 10);
  assert.deepEqual(rows[3], [null, '7', '9', 3]);
  await writeReport(folder, 'T0002', { label_list: [], Confusion_Matrix: matrix });
});
