/** A task's metric history as curves for a plot. */
import type { CurvePoint } from './records.js';

/** By metric, [x, y] with rising x; y null = not finite. */
export type Curves = Record<string, [number, number | null][]>;

/**
 * Splits the history by series and metric. A curve with more than `maxPoints` points is thinned by buckets of equal
 * count, keeping the lowest and the highest of each, so that spikes stay visible; first and last point stay.
 */
export function toCurves(points: readonly CurvePoint[], maxPoints = 2000): { train: Curves; eval: Curves } {
  const curves: { train: Curves; eval: Curves } = { train: {}, eval: {} };
  for (const point of points) {
    const series = curves[point.series];
    for (const name in point.values) {
      if (name === 'Epoch' || name === 'Step') continue;
      const curve = series[name] ?? [];
      series[name] = curve;
      curve.push([point.x, point.values[name] ?? null]);
    }
  }
  for (const series of [curves.train, curves.eval]) {
    for (const name in series) series[name] = thin(series[name] as [number, number | null][], maxPoints);
  }
  return curves;
}

function thin(curve: [number, number | null][], maxPoints: number): [number, number | null][] {
  if (curve.length <= maxPoints) return curve;
  const buckets = Math.max(1, Math.floor((maxPoints - 2) / 2));
  const inner = curve.length - 2;
  const kept: [number, number | null][] = [curve[0] as [number, number | null]];
  for (let bucket = 0; bucket < buckets; bucket++) {
    const from = 1 + Math.floor((bucket * inner) / buckets);
    const to = 1 + Math.floor(((bucket + 1) * inner) / buckets);
    let low = from;
    let high = from;
    for (let at = from; at < to; at++) {
      const y = curve[at]?.[1];
      if (y === null || y === undefined) continue;
      if (y < (curve[low]?.[1] ?? Number.POSITIVE_INFINITY)) low = at;
      if (y > (curve[high]?.[1] ?? Number.NEGATIVE_INFINITY)) high = at;
    }
    for (const at of low === high ? [low] : [Math.min(low, high), Math.max(low, high)]) {
      kept.push(curve[at] as [number, number | null]);
    }
  }
  kept.push(curve[curve.length - 1] as [number, number | null]);
  return kept;
}
