/** The overview: everything the workspace holds, kept up to date by the event stream. */
import {
  base,
  DATASET_STATES,
  duration,
  el,
  follow,
  get,
  note,
  pill,
  pruned,
  short,
  soon,
  TASK_STATES,
  TYPE_WORDS,
  table,
} from './common.js';

const at = (id) => document.getElementById(id);
const byTime = (a, b) =>
  a.create_time < b.create_time ? 1 : a.create_time > b.create_time ? -1 : b.id.localeCompare(a.id);
const RUNNING = new Set([3, 15]);
const ANALYSED = 14;
const PRUNED = 15;
const MAX_ROWS = 200;

const state = {
  tasks: [],
  projects: new Map(),
  /** Task id → { epoch, num_epochs, step, steps, eta, metrics } */
  progress: new Map(),
  /** Task id → text: what was pruned, or how far the analysis is. */
  pruning: new Map(),
  /** Task id → { status, text }: why it failed. */
  reasons: new Map(),
};
const FAILED = new Set([9, 10]);

function fill(id, heads, rows, empty) {
  at(`${id}-count`).textContent = rows.length === 0 ? '' : String(rows.length);
  if (rows.length === 0) {
    at(id).replaceChildren(el('div', { class: 'empty' }, ...[empty].flat()));
    return;
  }
  const shown = rows.slice(0, MAX_ROWS);
  if (rows.length > MAX_ROWS) {
    const more = `and ${rows.length - MAX_ROWS} more`;
    shown.push([el('td', { colspan: String(heads.length), class: 'note' }, more)]);
  }
  at(id).replaceChildren(table(heads, shown));
}

const id = (text) => el('td', { class: 'id' }, text);
/** Date and time, each unbroken. */
const time = (text) =>
  el(
    'td',
    { class: 'time' },
    ...String(text)
      .split(' ')
      .flatMap((part) => [el('span', {}, part), ' ']),
  );

function curlExample() {
  return el(
    'pre',
    {},
    `curl -X POST ${location.origin}${base}dataset -H 'Content-Type: application/json' \\\n  -d '{"name": "flowers", "desc": "", "dataset_type": "classification"}'`,
  );
}

function progressCell(task) {
  const seen = state.progress.get(task.id);
  if (FAILED.has(task.status)) return el('td', {}, note(state.reasons.get(task.id)?.text));
  if (task.status === ANALYSED) return el('td', {}, note(state.pruning.get(task.id)));
  if (!RUNNING.has(task.status)) return el('td', {});
  if (seen === undefined)
    return el('td', { class: 'note' }, task.queued === true ? 'waiting for a device' : 'starting');
  const done =
    seen.steps > 0 ? (seen.epoch - 1 + seen.step / seen.steps) / seen.num_epochs : (seen.epoch - 1) / seen.num_epochs;
  const words = [`epoch ${seen.epoch} of ${seen.num_epochs}`];
  if (seen.eta > 0) words.push(`${duration(seen.eta)} left`);
  if (typeof seen.metrics?.loss === 'number') words.push(`loss ${short(seen.metrics.loss)}`);
  if (task.status === PRUNED && state.pruning.has(task.id)) words.push(state.pruning.get(task.id));
  return el(
    'td',
    {},
    el('progress', {
      max: '1',
      value: String(Math.min(1, Math.max(0, done || 0))),
      'aria-label': `progress of ${task.id}`,
    }),
    el('div', { class: 'note' }, words.join(', ')),
  );
}

function drawTasks() {
  const rank = (task) => (RUNNING.has(task.status) ? 0 : 1);
  const tasks = [...state.tasks].sort((a, b) => rank(a) - rank(b) || byTime(a, b));
  fill(
    'tasks',
    ['Task', 'Project', 'State', 'Progress', 'Type', 'Created', ''],
    tasks.map((task) => [
      id(task.id),
      el('td', { class: 'name' }, state.projects.get(task.pid)?.name ?? task.pid, note(task.desc)),
      el('td', {}, pill(TASK_STATES[task.status] ?? [String(task.status), ''])),
      progressCell(task),
      el('td', {}, TYPE_WORDS[task.type] ?? task.type),
      time(task.create_time),
      el('td', {}, task.status > 1 ? el('a', { href: `board/${encodeURIComponent(task.id)}` }, 'curves') : null),
    ]),
    'No tasks yet. A task is one training of a project.',
  );
}

async function loadTasks() {
  const { tasks } = await get('project/task');
  state.tasks = tasks;
  drawTasks();
  const running = tasks.filter((task) => RUNNING.has(task.status) && !state.progress.has(task.id));
  await Promise.all(
    running.slice(0, 20).map(async (task) => {
      const [{ train_log: log }, { train }] = await Promise.all([
        get('project/task/metrics', { tid: task.id, type: 'train' }),
        get('project/task/params', { tid: task.id }),
      ]);
      task.queued = log?.queued === true;
      if (log?.pruning) state.pruning.set(task.id, pruned(log.pruning));
      if (log?.train_metrics?.Epoch === undefined || state.progress.has(task.id)) return;
      const { Epoch: epoch, Step: step, ...metrics } = log.train_metrics;
      state.progress.set(task.id, { epoch, step, steps: 0, num_epochs: train.num_epochs, eta: log.eta, metrics });
    }),
  );
  const analysed = tasks.filter((task) => task.status === ANALYSED);
  await Promise.all(
    analysed.slice(0, 20).map(async ({ id: tid }) => {
      const { prune_log: log } = await get('project/task/metrics', { tid, type: 'prune' });
      const left = log?.eta ? `, ${log.eta} left` : '';
      state.pruning.set(tid, log?.progress ? `${log.progress} measured${left}` : 'starting');
    }),
  );
  const failed = tasks.filter((task) => FAILED.has(task.status) && state.reasons.get(task.id)?.status !== task.status);
  await Promise.all(
    failed.slice(-20).map(async ({ id: tid, status }) => {
      const { message } = await get('project/task', { tid });
      state.reasons.set(tid, { status, text: message });
    }),
  );
  if (running.length + analysed.length + failed.length > 0) drawTasks();
}

async function loadProjects() {
  const { projects } = await get('project');
  state.projects = new Map(projects.map((project) => [project.id, project.attr]));
  fill(
    'projects',
    ['Project', 'Name', 'Type', 'Dataset', 'Created'],
    projects
      .map(({ id: pid, attr }) => ({ ...attr, id: pid }))
      .sort(byTime)
      .map((project) => [
        id(project.id),
        el('td', { class: 'name' }, project.name, note(project.desc)),
        el('td', {}, TYPE_WORDS[project.type] ?? project.type),
        id(project.did || '–'),
        time(project.create_time),
      ]),
    'No projects yet. A project binds a dataset and holds its tasks.',
  );
  if (state.tasks.length > 0) drawTasks();
}

function datasetNote(attr) {
  const { message } = attr;
  if (message !== null && typeof message === 'object' && typeof message.percent === 'number') {
    return el('progress', { max: '1', value: String(message.percent), 'aria-label': `import of ${attr.id}` });
  }
  return typeof message === 'string' ? note(message.trim().slice(0, 4000)) : null;
}

async function loadDatasets() {
  const { datasets } = await get('dataset');
  fill(
    'datasets',
    ['Dataset', 'Name', 'State', 'Type', 'Created'],
    datasets
      .map(({ id: did, attr }) => ({ ...attr, id: did }))
      .sort(byTime)
      .map((dataset) => [
        id(dataset.id),
        el('td', { class: 'name' }, dataset.name, note(dataset.desc)),
        el(
          'td',
          {},
          pill(DATASET_STATES[dataset.dataset_status] ?? [String(dataset.dataset_status), '']),
          datasetNote(dataset),
        ),
        el('td', {}, TYPE_WORDS[dataset.type] ?? dataset.type),
        time(dataset.create_time),
      ]),
    [
      'No datasets yet. Create one and import a folder of pictures:',
      curlExample(),
      el('a', { href: 'docs' }, 'All calls of the API'),
    ],
  );
}

async function loadModels() {
  const { exported_models: models } = await get('model', { type: 'exported' });
  fill(
    'models',
    ['Model', 'Name', 'Network', 'Type', 'Task', 'Folder', 'Created'],
    [...models]
      .sort(byTime)
      .map((model) => [
        id(model.id),
        el('td', { class: 'name' }, model.name),
        el('td', {}, model.model),
        el('td', {}, TYPE_WORDS[model.type] ?? model.type),
        id(model.tid),
        el('td', { class: 'note path' }, model.path),
        time(model.create_time),
      ]),
    'No exported models yet.',
  );
}

async function loadMachine() {
  const [{ info }, { dirname }] = await Promise.all([get('system', { type: 'machine_info' }), get('workspace')]);
  const facts = [
    ['Processor threads', String(info.cpu_num)],
    [
      'GPUs',
      info.gpu_num === 0
        ? 'none'
        : `${info.gpu_num}${info.gpu_free_mem ? ` (${info.gpu_free_mem.join(', ')} MB free)` : ''}`,
    ],
    ['System', info.message],
    ['Workspace', dirname],
  ];
  at('machine').replaceChildren(...facts.flatMap(([name, value]) => [el('dt', {}, name), el('dd', {}, value)]));
}

const failed = new Map();
/** Runs a loader and shows its failure until it works again. */
const guarded = (name, load) => async () => {
  try {
    await load();
    failed.delete(name);
  } catch (error) {
    failed.set(name, `${name}: ${error.message}`);
  }
  at('alert').textContent = [...failed.values()].join(' ');
};

const loaders = {
  project: soon(guarded('Projects', loadProjects)),
  dataset: soon(guarded('Datasets', loadDatasets)),
  task: soon(guarded('Tasks', loadTasks)),
  model: soon(guarded('Models', loadModels)),
  system: soon(guarded('Machine', loadMachine)),
};
const loadAll = () => {
  for (const load of Object.values(loaders)) load();
};
let drawing = false;

loadAll();
setInterval(loaders.system, 30_000);
follow(['dataset', 'project', 'task', 'progress', 'pruned', 'job', 'model', 'system'], {
  onReset: loadAll,
  onLive(on) {
    at('live').className = on ? 'live on' : 'live';
    at('live').textContent = on ? 'live' : 'connection lost, trying again';
  },
  onEvent(type, data) {
    if (type === 'progress') {
      state.progress.set(data.id, data);
      if (drawing) return;
      drawing = true;
      requestAnimationFrame(() => {
        drawing = false;
        drawTasks();
      });
      return;
    }
    if (type === 'pruned') {
      state.pruning.set(data.id, pruned(data));
      return drawTasks();
    }
    if (type === 'task' && data.status !== undefined && !RUNNING.has(data.status)) state.progress.delete(data.id);
    if (type === 'job') {
      loaders.task();
      loaders.model();
      return;
    }
    loaders[type]?.();
    if (type === 'task') loaders.model();
  },
});
