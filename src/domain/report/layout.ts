/** What stands where in the evaluation spreadsheet, independent of the file format. */

/** A number that is shown with four decimals. */
export class Ratio {
  constructor(readonly value: number) {}
}

export type Cell = string | number | Ratio | null;
/** Rows from the top; `null` cells stay empty. */
export type Rows = Cell[][];

export interface ReportOptions {
  /** k of the top-k accuracy, when the report itself does not say. */
  topk?: number;
}

/** A larger matrix would be unreadable, and a few hundred megabytes. */
export const MAX_MATRIX = 200;
const MAX_PAIRS = 5000;

/** PaddleX's headings. */
const TITLES: Readonly<Record<string, string>> = {
  Confusion_Matrix: '混淆矩阵',
  Mask_Confusion_Matrix: 'Mask混淆矩阵',
  BBox_Confusion_Matrix: 'Bbox混淆矩阵',
  PRF1: '整体分类评估结果',
  PRF1_average: '整体平均指标',
  PRAP: '整体检测评估结果',
  BBox_PRAP: 'Bbox评估结果',
  Mask_PRAP: 'Mask评估结果',
  PRIoU: '整体平均指标',
  mAP: '平均精准率的均值（mAP）',
  Mask_mAP: 'Mask的平均精准率的均值（mAP）',
  BBox_mAP: 'Bbox的平均精准率的均值（mAP）',
  Mean_IoU: '平均交并比（mIoU）',
  Mean_Acc: '平均准确率（mAcc）',
  Acc1: '预测Top1的准确率',
  Acck: '预测Top{k}的准确率',
  score_thresh: '置信度阈值',
  overlap_thresh: 'IoU阈值',
  pr_curves: '精准率-召回率曲线',
  BBox_pr_curves: 'Bbox精准率-召回率曲线',
  Mask_pr_curves: 'Mask精准率-召回率曲线',
};
const COLUMNS: Readonly<Record<string, string>> = {
  class: '类别（Class）',
  precision: '精准率（Precision）',
  recall: '召回率（Recall）',
  f1: 'F1-score',
  auc: 'Area Under Curve',
  ap: '平均精准率（Average Precision)',
  iou: '交并比（IoU）',
  over_all: '整体（over_all）',
};
const CLASS = COLUMNS.class as string;

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const column = (key: string): string => COLUMNS[key.toLowerCase()] ?? key;

/** Four decimals; an undefined ratio (-1, null, not finite) reads `nan`. */
function ratio(value: unknown): Cell {
  if (typeof value === 'string') return value;
  if (typeof value !== 'number' || !Number.isFinite(value) || value === -1) return 'nan';
  return new Ratio(Math.round(value * 1e4) / 1e4);
}

/** One block per matrix, table or single number of the report, in its order. */
export function layoutReport(report: Readonly<Record<string, unknown>>, options: ReportOptions = {}): Rows {
  const labels = Array.isArray(report.label_list)
    ? report.label_list.map((label) => (typeof label === 'string' ? label : JSON.stringify(label)))
    : [];
  const topk = typeof report.topk === 'number' ? report.topk : (options.topk ?? 5);
  const rows: Rows = [];
  for (const [key, value] of Object.entries(report)) {
    const title = (TITLES[key] ?? key).replace('{k}', String(topk));
    if (key === 'label_list' || key === 'epoch' || key === 'topk') continue;
    if (Array.isArray(value) && value.every((row) => Array.isArray(row)))
      rows.push([title], ...matrix(value as unknown[][], labels), [], []);
    else if (isObject(value) && key.endsWith('pr_curves')) rows.push([title], ...curves(value), [], []);
    else if (isObject(value)) rows.push([title], ...table(value), [], []);
    else if (value === null || typeof value === 'number') rows.push([title], [null, ratio(value)], [], []);
  }
  return rows;
}

function matrix(values: unknown[][], labels: readonly string[]): Rows {
  const names = values.map((_, at) => labels[at] ?? String(at));
  const count = (row: number, at: number): number => Number(values[row]?.[at] ?? 0);
  if (values.length <= MAX_MATRIX) {
    return [
      [null, CLASS, ...names],
      ...names.map((name, row): Cell[] => [null, name, ...names.map((_, at) => count(row, at))]),
    ];
  }
  const pairs: [string, string, number][] = [];
  for (const [row, name] of names.entries()) {
    for (const [at, predicted] of names.entries())
      if (at !== row && count(row, at) > 0) pairs.push([name, predicted, count(row, at)]);
  }
  pairs.sort((a, b) => b[2] - a[2]);
  return [
    [null, `${names.length}个类别，矩阵过大，仅列出最常见的误判`],
    [null, '真实类别', '预测类别', '数量'],
    ...pairs.slice(0, MAX_PAIRS).map((pair): Cell[] => [null, ...pair]),
  ];
}

/** `{class: {metric: value}}` with a column a metric, or `{name: value}` with one. */
function table(values: Record<string, unknown>): Rows {
  const entries = Object.entries(values);
  const metrics = [...new Set(entries.flatMap(([, row]) => (isObject(row) ? Object.keys(row) : [])))];
  if (metrics.length === 0) {
    return [[null, CLASS], ...entries.map(([name, value]): Cell[] => [null, column(name), ratio(value)])];
  }
  return [
    [null, CLASS, ...metrics.map(column)],
    ...entries.map(([name, row]): Cell[] => [
      null,
      COLUMNS[name] ?? name,
      ...metrics.map((metric) => ratio(isObject(row) ? row[metric] : null)),
    ]),
  ];
}

/** Every tenth of the recall. */
const RECALLS = Array.from({ length: 11 }, (_, tenth) => tenth / 10);

/** `{class: {recall, precision}}` as a row a class with the precision at each recall. */
function curves(values: Record<string, unknown>): Rows {
  const numbers = (list: unknown): number[] => (Array.isArray(list) ? list.map(Number) : []);
  const row = ([name, curve]: [string, unknown]): Cell[] => {
    const [recall, precision] = isObject(curve) ? [numbers(curve.recall), numbers(curve.precision)] : [[], []];
    const at = (wanted: number): unknown => precision[recall.findIndex((value) => value >= wanted - 1e-9)];
    return [null, name, ...RECALLS.map((wanted) => ratio(at(wanted)))];
  };
  return [
    [null, CLASS, ...RECALLS.map((wanted) => `${column('recall')} ${wanted}`)],
    ...Object.entries(values).map(row),
  ];
}
