/**
 * The one transition table of datasets, tasks and side jobs (PaddleX API). A state changes only through `next`, inside the
 * transaction that reads the state it starts from, so two callers can never both win.
 */
import { DatasetStatus as D, PredictStatus, PretrainedModelStatus, PruneStatus, TaskStatus as T } from './enums.js';
import { conflict } from './errors.js';

/** A side job that was never started. */
export const NONE = -1;

/** `settled`: back to the state before, which the record keeps. */
type Target = number | 'settled' | 'same';
interface Row {
  readonly from: readonly number[];
  readonly to: Target;
}
type Machine = Readonly<Record<string, readonly Row[]>>;

const rows = (...list: [readonly number[], Target][]): Row[] => list.map(([from, to]) => ({ from, to }));

/** States in which a task rests and has, or may have, something to evaluate and export. */
export const SETTLED: readonly number[] = [
  T.XTRAINDONE,
  T.XEVALUATED,
  T.XEXPORTED,
  T.XTRAINEXIT,
  T.XTRAINFAIL,
  T.XDOWNLOADFAIL,
];
/** A training is queued or running. */
export const IN_TRAINING: readonly number[] = [T.XTRAINING, T.XPRUNETRAIN];

const DATASET = {
  import: rows([[D.XEMPTY, D.XCHECKFAIL, D.XCOPYFAIL, D.XCOPYDONE, D.XSPLITED], D.XCHECKING]),
  checked: rows([[D.XCHECKING], D.XCOPYING]),
  copied: rows([[D.XCOPYING], D.XCOPYDONE]),
  copiedSplit: rows([[D.XCOPYING], D.XSPLITED]),
  failed: rows([[D.XCHECKING], D.XCHECKFAIL], [[D.XCOPYING], D.XCOPYFAIL]),
  split: rows([[D.XCOPYDONE, D.XSPLITED], D.XSPLITED]),
} satisfies Machine;

const TASK = {
  train: rows([[T.XINIT, ...SETTLED], T.XTRAINING]),
  pruneTrain: rows([[T.XINIT, ...SETTLED], T.XPRUNETRAIN]),
  resume: rows([SETTLED, T.XTRAINING]),
  resumePrune: rows([SETTLED, T.XPRUNETRAIN]),
  trained: rows([IN_TRAINING, T.XTRAINDONE]),
  stopped: rows([IN_TRAINING, T.XTRAINEXIT]),
  trainFailed: rows([IN_TRAINING, T.XTRAINFAIL]),
  weightsMissing: rows([IN_TRAINING, T.XDOWNLOADFAIL]),
  pruneStart: rows([[T.XTRAINDONE, T.XEVALUATED, T.XEXPORTED, T.XTRAINEXIT], T.XPRUNEING]),
  pruneEnd: rows([[T.XPRUNEING], 'settled']),
  exportStart: rows([SETTLED, T.XEXPORTING]),
  exported: rows([[T.XEXPORTING], T.XEXPORTED]),
  exportEnd: rows([[T.XEXPORTING], 'settled']),
  // An evaluation may end while something else has begun on the task, which then keeps its state.
  evaluated: rows([SETTLED, T.XEVALUATED], [[T.XINIT, ...IN_TRAINING, T.XEXPORTING, T.XPRUNEING], 'same']),
} satisfies Machine;

const EVALUATE = {
  start: rows([[NONE, T.XEVALUATED, T.XEVALUATEFAIL], T.XEVALUATING]),
  done: rows([[T.XEVALUATING], T.XEVALUATED]),
  failed: rows([[T.XEVALUATING], T.XEVALUATEFAIL]),
} satisfies Machine;

const EXPORT = {
  start: rows([[NONE, T.XEXPORTED, T.XEXPORTFAIL], T.XEXPORTING]),
  done: rows([[T.XEXPORTING], T.XEXPORTED]),
  failed: rows([[T.XEXPORTING], T.XEXPORTFAIL]),
} satisfies Machine;

const P = PredictStatus;
const PREDICT = {
  // A second prediction replaces a running first one.
  start: rows([[NONE, P.XPRESTART, P.XPREDONE, P.XPREFAIL], P.XPRESTART]),
  done: rows([[P.XPRESTART], P.XPREDONE]),
  failed: rows([[P.XPRESTART], P.XPREFAIL]),
} satisfies Machine;

const S = PruneStatus;
const PRUNE = {
  start: rows([[NONE, S.XSPRUNEDONE, S.XSPRUNEFAIL, S.XSPRUNEEXIT], S.XSPRUNEING]),
  done: rows([[S.XSPRUNEING], S.XSPRUNEDONE]),
  failed: rows([[S.XSPRUNEING], S.XSPRUNEFAIL]),
  stopped: rows([[S.XSPRUNEING], S.XSPRUNEEXIT]),
} satisfies Machine;

const M = PretrainedModelStatus;
const PRETRAINED = {
  save: rows([[M.XPINIT], M.XPSAVING]),
  done: rows([[M.XPSAVING], M.XPSAVEDONE]),
  failed: rows([[M.XPINIT, M.XPSAVING], M.XPSAVEFAIL]),
} satisfies Machine;

export const MACHINES = {
  dataset: DATASET,
  task: TASK,
  evaluate: EVALUATE,
  predict: PREDICT,
  export: EXPORT,
  prune: PRUNE,
  pretrained: PRETRAINED,
} as const;
export type MachineName = keyof typeof MACHINES;
export type EventOf<M extends MachineName> = keyof (typeof MACHINES)[M] & string;

/** The state that `event` leads to, or undefined when the table does not allow it there. */
export function allowed<M extends MachineName>(
  machine: M,
  state: number,
  event: EventOf<M>,
  settled: number = state,
): number | undefined {
  const row = (MACHINES[machine] as Machine)[event]?.find(({ from }) => from.includes(state));
  if (row === undefined) return undefined;
  return row.to === 'settled' ? settled : row.to === 'same' ? state : row.to;
}

/** Like `allowed`, but refuses with `conflict` and the words for what was tried. */
export function next<M extends MachineName>(
  machine: M,
  id: string,
  state: number,
  event: EventOf<M>,
  settled?: number,
): number {
  const to = allowed(machine, state, event, settled);
  if (to !== undefined) return to;
  const name = stateName(machine, state);
  throw conflict(name, `${id} ${DOING[event] ?? `cannot take "${event}"`} while it ${describe(machine, state)}.`);
}

const DOING: Readonly<Record<string, string>> = {
  import: 'cannot be imported',
  split: 'cannot be split',
  train: 'cannot start training',
  pruneTrain: 'cannot start training',
  resume: 'cannot resume training',
  resumePrune: 'cannot resume training',
  pruneStart: 'cannot be analysed for pruning',
  exportStart: 'cannot be exported',
  start: 'cannot be started',
};

const NAMES: Readonly<Record<MachineName, Readonly<Record<string, number>>>> = {
  dataset: D,
  task: T,
  evaluate: T,
  export: T,
  predict: P,
  prune: S,
  pretrained: M,
};

/** The state's name as PaddleX spells it, for `context.state`. */
export function stateName(machine: MachineName, state: number): string {
  if (state === NONE) return 'never started';
  return Object.entries(NAMES[machine]).find(([, value]) => value === state)?.[0] ?? String(state);
}

const WORDS: Readonly<Record<string, string>> = {
  XEMPTY: 'has no data yet',
  XCHECKING: 'is being checked',
  XCHECKFAIL: 'has failed its check',
  XCOPYING: 'is being copied',
  XCOPYDONE: 'is imported but not split',
  XCOPYFAIL: 'has failed to be copied',
  XSPLITED: 'is split',
  XINIT: 'has not been trained',
  XTRAINING: 'is in training',
  XPRUNETRAIN: 'is in training',
  XPRUNEING: 'is being analysed for pruning',
  XEXPORTING: 'is being exported',
  XEVALUATING: 'is being evaluated',
  XSPRUNEING: 'is being analysed for pruning',
};

function describe(machine: MachineName, state: number): string {
  const name = stateName(machine, state);
  return WORDS[name] ?? `is in the state ${name}`;
}
