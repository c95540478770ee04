/** Attributes of records by name (`/workspace`). */
import { checkText, type DomainContext } from './context.js';
import type { WorkspaceApi } from './contracts.js';
import { conflict, invalidArgument, notFound } from './errors.js';
import type { Kind, Kinds } from './records.js';
import type { Tx } from './repository.js';

/** Attributes by the names of PaddleX's own records, readable; and which of them may be set. */
const STRUCTS = {
  dataset: {
    kind: 'dataset',
    readable: ['id', 'name', 'desc', 'type', 'path', 'create_time'],
    writable: ['name', 'desc'],
  },
  project: {
    kind: 'project',
    readable: ['id', 'name', 'desc', 'type', 'did', 'path', 'create_time'],
    writable: ['name', 'desc', 'did'],
  },
  task: {
    kind: 'task',
    readable: ['id', 'name', 'desc', 'pid', 'path', 'create_time', 'parent_id'],
    writable: ['name', 'desc'],
  },
  pretrained_model: {
    kind: 'pretrained',
    readable: ['id', 'name', 'model', 'type', 'pid', 'tid', 'create_time', 'path'],
    writable: [],
  },
  exported_model: {
    kind: 'exported',
    readable: ['id', 'name', 'model', 'type', 'pid', 'tid', 'create_time', 'path', 'exported_type'],
    writable: [],
  },
} as const satisfies Record<string, { kind: Kind; readable: readonly string[]; writable: readonly string[] }>;
type Struct = keyof typeof STRUCTS;

export class Workspace implements WorkspaceApi {
  readonly #context: DomainContext;

  constructor(context: DomainContext) {
    this.#context = context;
  }

  get dirname(): string {
    return this.#context.config.workspace;
  }

  attributes(struct: string, id: string, names: readonly string[]): Record<string, unknown> {
    const { kind, readable } = definition(struct);
    const record = this.#context.store.get(kind, id) as unknown as Record<string, unknown> | undefined;
    if (record === undefined) throw notFound(struct, id);
    const values: Record<string, unknown> = {};
    for (const name of names) {
      if (name === 'struct') continue; // PaddleX skips it, so scripts may send it
      if (!(readable as readonly string[]).includes(name)) throw unknownAttribute('attr_list', struct, name, readable);
      values[name] = record[name];
    }
    return values;
  }

  async setAttributes(struct: string, id: string, values: Readonly<Record<string, unknown>>): Promise<void> {
    const { kind, readable, writable } = definition(struct);
    const names = Object.keys(values);
    for (const name of names) {
      if ((writable as readonly string[]).includes(name)) {
        if (typeof values[name] !== 'string') throw invalidArgument(`attr_dict.${name}`, `${name} must be text.`);
        if (name !== 'did') checkText(name, values[name]);
      } else if ((readable as readonly string[]).includes(name)) {
        const may = writable.length === 0 ? 'nothing' : writable.join(', ');
        throw invalidArgument(`attr_dict.${name}`, `${name} of a ${struct} cannot be changed; ${may} can.`);
      } else throw unknownAttribute(`attr_dict.${name.slice(0, 60)}`, struct, name, readable);
    }
    const { store, events } = this.#context;
    const changed = await store.change((tx) => {
      const record = tx.get(kind, id);
      if (record === undefined) throw notFound(struct, id);
      if (struct === 'project' && values.did !== undefined) checkBinding(tx, id, values.did as string);
      const updated = { ...record, ...values } as Kinds[typeof kind];
      tx.put(kind, updated);
      return updated;
    });
    if (names.length === 0) return;
    if (struct === 'task') events.publish('task', { id, pid: (changed as Kinds['task']).pid, action: 'changed' });
    else if (struct === 'dataset' || struct === 'project') events.publish(struct, { id, action: 'changed' });
  }
}

function definition(struct: string): (typeof STRUCTS)[Struct] {
  if (Object.hasOwn(STRUCTS, struct)) return STRUCTS[struct as Struct];
  throw invalidArgument(
    'struct',
    `struct must be one of ${Object.keys(STRUCTS).join(', ')}, not "${struct.slice(0, 60)}".`,
  );
}

const unknownAttribute = (field: string, struct: string, name: string, readable: readonly string[]) =>
  invalidArgument(field, `A ${struct} has no attribute "${name.slice(0, 60)}"; it has ${readable.join(', ')}.`);

function checkBinding(tx: Tx, pid: string, did: string): void {
  const project = tx.get('project', pid);
  if (project === undefined) throw notFound('project', pid);
  if (did === project.did) return;
  const dataset = did === '' ? undefined : tx.get('dataset', did);
  if (did !== '' && dataset === undefined) throw notFound('dataset', did);
  if (dataset !== undefined && dataset.type !== project.type) {
    throw invalidArgument(
      'attr_dict.did',
      `${did} is a ${dataset.type} dataset; ${pid} is a ${project.type} project.`,
      'Bind a dataset of the same type.',
    );
  }
  const tasks = tx.list('task').filter((task) => task.pid === pid);
  if (tasks.length > 0) {
    throw conflict(
      'has tasks',
      `The dataset of ${pid} cannot be changed: ${tasks.length} of its tasks use it.`,
      'Create another project for the other dataset.',
    );
  }
}
