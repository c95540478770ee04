/** Repairs of evaluation reports that PaddleX wrote. */

type Row = Record<string, number | null>;
const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/**
 * PaddleX computes 0/0 for a class that is never predicted, which spoils the averages too. Such a precision is 0 here, and the
 * averages (weighted by the share of true samples) are computed again.
 */
export function repairReport(report: Record<string, unknown>): Record<string, unknown> {
  const { PRF1: rows, PRF1_average: average, Confusion_Matrix: matrix } = report;
  if (!isObject(rows) || !isObject(average) || !isObject(average.over_all) || !Array.isArray(matrix)) return report;
  const classes = Object.entries(rows) as [string, Row][];
  const repaired = classes.map(([name, row]): [string, Row] => [
    name,
    Object.fromEntries(Object.entries(row).map(([key, value]) => [key, value ?? 0])),
  ]);
  const truth = matrix.map((row) =>
    Array.isArray(row) ? row.reduce((sum: number, value) => sum + Number(value), 0) : 0,
  );
  const total = truth.reduce((sum, count) => sum + count, 0);
  const overall = Object.fromEntries(
    Object.entries(average.over_all as Row).map(([key, value]) => {
      if (value !== null || total === 0) return [key, value ?? 0];
      return [
        key,
        repaired.reduce((sum, [, row], at) => sum + ((truth[at] ?? 0) / total) * Math.max(row[key] ?? 0, 0), 0),
      ];
    }),
  );
  return { ...report, PRF1: Object.fromEntries(repaired), PRF1_average: { ...average, over_all: overall } };
}
