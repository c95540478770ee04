/** Worker thread that makes the spreadsheet: the library is large and works synchronously. */
import { parentPort, workerData } from 'node:worker_threads';
import { writeFileAtomic } from '../atomic-file.js';
import { layoutReport, Ratio, type ReportOptions } from './layout.js';

export interface WriteOrder {
  path: string;
  report: Record<string, unknown>;
  options: ReportOptions;
}

/** Excel files hold no control characters and no halves of surrogate pairs. */
const clean = (text: string): string =>
  Buffer.from(text)
    .toString()
    .replace(/[\p{Cc}\ufffe\uffff]/gu, '')
    .slice(0, MAX_CELL);
const MAX_CELL = 32_767;

export async function writeWorkbook({ path, report, options }: WriteOrder): Promise<void> {
  const { default: excel } = await import('exceljs');
  const book = new excel.Workbook();
  book.creator = 'Oarlock';
  const sheet = book.addWorksheet('评估报告');
  for (const cells of layoutReport(report, options)) {
    const row = sheet.addRow(
      cells.map((cell) => (cell instanceof Ratio ? cell.value : typeof cell === 'string' ? clean(cell) : cell)),
    );
    cells.forEach((cell, at) => {
      if (cell instanceof Ratio) row.getCell(at + 1).numFmt = '0.0000';
    });
    if (typeof cells[0] === 'string') row.font = { bold: true };
  }
  sheet.getColumn(1).width = 28;
  for (let at = 2; at <= Math.min(sheet.columnCount, 50); at++) sheet.getColumn(at).width = 18;
  await writeFileAtomic(path, new Uint8Array(await book.xlsx.writeBuffer()));
}

if (parentPort !== null && (workerData as { order?: WriteOrder } | null)?.order !== undefined) {
  await writeWorkbook((workerData as { order: WriteOrder }).order);
}
