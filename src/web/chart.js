/** One line chart in SVG: grid, raw and smoothed line, readout under the pointer. */
import { el, short } from './common.js';

const SVG = 'http://www.w3.org/2000/svg';
const LEFT = 52;
const RIGHT = 10;
const TOP = 10;
const BOTTOM = 24;
const HEIGHT = 210;

const svg = (name, attributes) => {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
};

/** Exponential moving average without a bias to zero at the start, as TensorBoard smooths. */
export function smooth(points, weight) {
  if (weight === 0) return points;
  let last = 0;
  let count = 0;
  return points.map(([x, y]) => {
    if (y === null) return [x, null];
    last = last * weight + (1 - weight) * y;
    count++;
    return [x, last / (1 - weight ** count)];
  });
}

/** Round values that divide the range into about `count` parts. */
export function ticks(low, high, count) {
  const raw = (high - low) / count;
  if (!(raw > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((m) => m >= raw) ?? 10 * power;
  const values = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9; value += step) values.push(value);
  return values;
}

const quantile = (sorted, q) => sorted[Math.min(sorted.length - 1, Math.max(0, Math.round(q * (sorted.length - 1))))];

export class Chart {
  constructor(name, unit) {
    this.unit = unit;
    this.value = el('span', { class: 'value' });
    this.svg = svg('svg', { role: 'img', 'aria-label': `${name} by ${unit}` });
    this.node = el('div', { class: 'card chart' }, el('h3', {}, name, this.value), this.svg);
    this.points = [];
    this.svg.addEventListener('pointermove', (event) => this.#point(event));
    this.svg.addEventListener('pointerleave', () => this.#rest());
  }

  draw(points, { smoothing, logarithmic, clip }) {
    this.points = points;
    const width = this.svg.clientWidth || 380;
    const smoothed = smooth(points, points.length > 30 ? smoothing : 0);
    const usable = points.filter(([, y]) => y !== null && (!logarithmic || y > 0));
    this.svg.setAttribute('viewBox', `0 0 ${width} ${HEIGHT}`);
    if (usable.length === 0) {
      const text = svg('text', { x: LEFT, y: HEIGHT / 2 });
      text.textContent = points.length === 0 ? 'no values yet' : 'no values that can be shown';
      this.svg.replaceChildren(text);
      this.value.textContent = '';
      return;
    }
    const toY = logarithmic ? Math.log10 : (y) => y;
    const ys = usable.map(([, y]) => toY(y)).sort((a, b) => a - b);
    const cut = clip && ys.length > 40;
    let low = cut ? quantile(ys, 0.01) : ys[0];
    let high = cut ? quantile(ys, 0.99) : ys[ys.length - 1];
    const margin = (high - low) * 0.06 || Math.abs(high) * 0.1 || 0.5;
    low -= margin;
    high += margin;
    const first = points[0][0];
    const last = points[points.length - 1][0];
    const spanX = last - first || 1;
    this.px = (x) => LEFT + ((x - first) / spanX) * (width - LEFT - RIGHT);
    this.py = (y) => {
      const place = TOP + ((high - toY(y)) / (high - low)) * (HEIGHT - TOP - BOTTOM);
      return Math.min(HEIGHT - BOTTOM, Math.max(TOP, place));
    };
    const parts = [];
    for (const value of ticks(low, high, 4)) {
      const y = TOP + ((high - value) / (high - low)) * (HEIGHT - TOP - BOTTOM);
      parts.push(svg('line', { class: 'grid', x1: LEFT, x2: width - RIGHT, y1: y, y2: y }));
      const label = svg('text', { x: LEFT - 6, y: y + 4, 'text-anchor': 'end' });
      label.textContent = short(logarithmic ? 10 ** value : value);
      parts.push(label);
    }
    for (const value of ticks(first, last, 5).filter((tick) => Number.isInteger(tick))) {
      const label = svg('text', { x: this.px(value), y: HEIGHT - 7, 'text-anchor': 'middle' });
      label.textContent = String(value);
      parts.push(label);
    }
    if (smoothed !== points) parts.push(svg('path', { class: 'raw', d: this.#path(points, logarithmic) }));
    parts.push(svg('path', { class: 'line', d: this.#path(smoothed, logarithmic) }));
    if (usable.length <= 60) {
      for (const [x, y] of usable) parts.push(svg('circle', { class: 'dot', cx: this.px(x), cy: this.py(y), r: 2.5 }));
    }
    this.cross = svg('line', { class: 'cross', y1: TOP, y2: HEIGHT - BOTTOM, visibility: 'hidden' });
    parts.push(this.cross);
    this.svg.replaceChildren(...parts);
    this.#rest();
  }

  /** Breaks where a value is missing. */
  #path(points, logarithmic) {
    let path = '';
    let pen = 'M';
    for (const [x, y] of points) {
      if (y === null || (logarithmic && y <= 0)) {
        pen = 'M';
        continue;
      }
      path += `${pen}${this.px(x).toFixed(1)},${this.py(y).toFixed(1)}`;
      pen = 'L';
    }
    return path;
  }

  #rest() {
    this.cross?.setAttribute('visibility', 'hidden');
    const last = this.points[this.points.length - 1];
    this.value.textContent = last === undefined ? '' : `${short(last[1])} at ${this.unit} ${last[0]}`;
  }

  #point(event) {
    if (this.px === undefined || this.points.length === 0) return;
    const box = this.svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * this.svg.viewBox.baseVal.width;
    let low = 0;
    let high = this.points.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (this.px(this.points[middle][0]) < x) low = middle;
      else high = middle;
    }
    const near = Math.abs(this.px(this.points[low][0]) - x) < Math.abs(this.px(this.points[high][0]) - x) ? low : high;
    const [px, value] = this.points[near];
    this.cross.setAttribute('x1', this.px(px));
    this.cross.setAttribute('x2', this.px(px));
    this.cross.setAttribute('visibility', 'visible');
    this.value.textContent = `${value === null ? 'not a number' : short(value)} at ${this.unit} ${px}`;
  }
}
