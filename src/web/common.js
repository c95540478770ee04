/** Pieces shared by the pages. Everything that comes from the server goes into the page as text, never as HTML. */

/** Address of something of the server, also when a proxy serves it below a path. */
export const base = new URL('..', import.meta.url).pathname;

/** An element with attributes and children (text or elements). */
export function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === 'class') node.className = value;
    else if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? '' : value);
  }
  node.append(...children.flat().filter((child) => child !== undefined && child !== null));
  return node;
}

/** A table in its own scroll area; `rows` are rows (`tr`) or lists of cells. */
export function table(heads, rows) {
  const row = (cells) => (Array.isArray(cells) ? el('tr', {}, cells) : cells);
  const head = heads.map((words) => el('th', {}, words));
  return el('table', {}, el('thead', {}, el('tr', {}, head)), el('tbody', {}, rows.map(row)));
}

/** Small text under something, cut after three lines; all of it shows on hovering. */
export const note = (text) => (text ? el('div', { class: 'note clamp', title: text }, text) : null);

/** A sentence in which `words` between backticks show as code. */
export function prose(text) {
  return text.split('`').map((part, index) => (index % 2 === 1 ? el('code', {}, part) : part));
}

/** GET of an API route; throws an error with the server's own sentence. */
export async function get(path, query = {}) {
  const url = new URL(base + path.replace(/^\//, ''), location.href);
  for (const [key, value] of Object.entries(query)) url.searchParams.set(key, value);
  const response = await fetch(url, { headers: { accept: 'application/json' } });
  const answer = await response.json();
  if (answer.status === -1 && answer.code !== undefined) throw new Error(answer.message);
  return answer;
}

/** Calls `onEvent(type, data)` for all that happens, `onReset()` when everything has to be loaded anew, `onLive(bool)` on connection changes. */
export function follow(types, { onEvent, onReset, onLive }) {
  const source = new EventSource(`${base}events`);
  let wasOpen = false;
  source.onopen = () => {
    onLive(true);
    // The browser reconnects with Last-Event-ID by itself; a restarted server may still know less than we do.
    if (wasOpen) onReset();
    wasOpen = true;
  };
  source.onerror = () => onLive(false);
  source.addEventListener('reset', onReset);
  for (const type of types) source.addEventListener(type, (event) => onEvent(type, JSON.parse(event.data)));
  return source;
}

/** Runs `work` soon, once for many calls, never twice at the same time. */
export function soon(work, delay = 150) {
  let _timer;
  let running = false;
  let again = false;
  const run = async () => {
    _timer = undefined;
    if (running) {
      again = true;
      return;
    }
    running = true;
    try {
      await work();
    } finally {
      running = false;
      if (again) {
        again = false;
        start();
      }
    }
  };
  const start = () => {
    _timer ??= setTimeout(run, delay);
  };
  return start;
}

export function duration(seconds) {
  if (!Number.isFinite(seconds)) return '';
  const whole = Math.max(0, Math.round(seconds));
  const h = Math.floor(whole / 3600);
  const m = Math.floor((whole % 3600) / 60);
  if (h > 0) return `${h} h ${m} min`;
  return m > 0 ? `${m} min ${whole % 60} s` : `${whole} s`;
}

/** A number in four significant digits. */
export function short(value) {
  if (typeof value !== 'number') return '–';
  if (value === 0) return '0';
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}

const less = (before, after) => `${Math.round((1 - after / before) * 100)} % fewer`;

/** What a pruned training has removed. */
export function pruned({ flops_before, flops_after, parameters_before, parameters_after }) {
  return `${less(flops_before, flops_after)} FLOPs, ${less(parameters_before, parameters_after)} parameters`;
}

/** Words and colours of task states. */
export const TASK_STATES = {
  0: ['not ready', ''],
  1: ['ready to start', ''],
  2: ['downloading', 'go'],
  3: ['training', 'go'],
  4: ['trained', 'good'],
  5: ['evaluated', 'good'],
  6: ['exporting', 'go'],
  7: ['exported', 'good'],
  8: ['stopped', 'wait'],
  9: ['download failed', 'bad'],
  10: ['failed', 'bad'],
  11: ['evaluating', 'go'],
  12: ['evaluation failed', 'bad'],
  13: ['export failed', 'bad'],
  14: ['analysing for pruning', 'go'],
  15: ['training, pruned', 'go'],
};

export const DATASET_STATES = {
  0: ['empty', ''],
  1: ['checking', 'go'],
  2: ['check failed', 'bad'],
  3: ['copying', 'go'],
  4: ['imported, not split', 'wait'],
  5: ['copy failed', 'bad'],
  6: ['ready', 'good'],
};

export const TYPE_WORDS = {
  classification: 'classification',
  detection: 'detection',
  segmentation: 'segmentation',
  instance_segmentation: 'instance segmentation',
};

export function pill([words, colour]) {
  return el('span', { class: `pill ${colour}` }, words);
}
