/** Training curves of one task, live. */
import { Chart } from './chart.js';
import { duration, el, follow, get, pill, pruned, short, soon, TASK_STATES } from './common.js';

const at = (id) => document.getElementById(id);
const tid = decodeURIComponent(location.pathname.replace(/\/$/, '').split('/').pop());
at('title').textContent = `${tid}: training curves`;
document.title = `${tid} · Oarlock`;

/** Metrics worth seeing first. */
const ORDER = ['loss', 'acc1', 'miou', 'lr'];
const rank = (name) => (ORDER.indexOf(name) + ORDER.length + 1) % (ORDER.length + 1);

let data;
const charts = new Map();

const options = () => ({
  smoothing: Number(at('smooth').value),
  logarithmic: at('log').checked,
  clip: at('outliers').checked,
});

function drawState(live) {
  const [words, colour] = TASK_STATES[data.task_status] ?? [String(data.task_status), ''];
  const facts = [];
  const epoch = live?.epoch ?? data.epoch;
  const total = live?.num_epochs ?? data.num_epochs;
  if (epoch !== null && total !== null) facts.push(`epoch ${epoch} of ${total}`);
  const eta = live?.eta ?? data.eta;
  if ([3, 15].includes(data.task_status) && eta > 0) facts.push(`${duration(eta)} left`);
  if (data.images_per_second !== null) facts.push(`${short(data.images_per_second)} images/s`);
  if (data.pruning !== null) facts.push(pruned(data.pruning));
  if (data.best_epoch !== null) facts.push(`best model from epoch ${data.best_epoch}`);
  at('state').replaceChildren(pill([words, colour]), ` ${facts.join(', ')}`);
}

function drawCharts() {
  for (const series of ['train', 'eval']) {
    const names = Object.keys(data[series]).sort((a, b) => rank(a) - rank(b) || a.localeCompare(b));
    const box = at(series);
    if (names.length === 0) {
      box.replaceChildren(
        el('div', { class: 'dim' }, series === 'train' ? 'Waiting for the first logged step.' : 'No evaluation yet.'),
      );
      continue;
    }
    const wanted = names.map((name) => {
      const key = `${series}/${name}`;
      const chart = charts.get(key) ?? new Chart(name, series === 'train' ? 'step' : 'epoch');
      charts.set(key, chart);
      chart.draw(data[series][name], options());
      return chart.node;
    });
    if (wanted.length !== box.children.length || wanted.some((node, index) => box.children[index] !== node)) {
      box.replaceChildren(...wanted);
    }
  }
}

const load = soon(async () => {
  try {
    data = await get(`board/${encodeURIComponent(tid)}/data`);
    at('alert').textContent = '';
    drawState();
    drawCharts();
  } catch (error) {
    at('alert').textContent = error.message;
  }
}, 50);

for (const id of ['smooth', 'log', 'outliers']) {
  at(id).addEventListener('input', () => {
    at('smooth-value').textContent = at('smooth').value;
    if (data !== undefined) drawCharts();
  });
}

function append(series, x, metrics) {
  for (const [name, value] of Object.entries(metrics)) {
    data[series][name] ??= [];
    const curve = data[series][name];
    // A resumed training goes back: what it repeats replaces what was there.
    while (curve.length > 0 && curve[curve.length - 1][0] >= x) curve.pop();
    curve.push([x, value ?? null]);
  }
}

const redraw = soon(drawCharts, 250);
load();
addEventListener('resize', () => data !== undefined && drawCharts());
follow(['task', 'progress', 'eval', 'pruned'], {
  onReset: load,
  onLive(on) {
    at('live').className = on ? 'live on' : 'live';
    at('live').textContent = on ? 'live' : 'connection lost, trying again';
  },
  onEvent(type, event) {
    if (event.id !== tid || data === undefined) return;
    if (type === 'task' || type === 'pruned') return load();
    if (type === 'progress') {
      append('train', (event.epoch - 1) * event.steps + event.step, event.metrics);
      drawState(event);
    } else append('eval', event.epoch, event.metrics);
    redraw();
  },
});
