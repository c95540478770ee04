/** A fixed sequence of calls that both the PaddleX 2.1 reference and this server answer; shapes are compared, not values. */
import type { Json, Method } from './server.js';

export interface Call {
  method: Method;
  path: string;
  body: Json;
  /** Poll this call until the field reaches one of the values. */
  until?: { field: string; values: number[] };
}

/** `images`: a folder of two classes; `workspace`: the server's workspace. */
export const referenceCalls = (images: string, workspace: string): Call[] => [
  { method: 'GET', path: '/workspace', body: {} },
  { method: 'GET', path: '/project', body: {} },
  { method: 'GET', path: '/dataset', body: {} },
  { method: 'GET', path: '/project/task', body: {} },
  { method: 'GET', path: '/model', body: { type: 'exported' } },
  { method: 'GET', path: '/model', body: { type: 'pretrained' } },
  { method: 'GET', path: '/system', body: { type: 'machine_info' } },
  { method: 'GET', path: '/system', body: { type: 'gpu_memory_size' } },
  { method: 'POST', path: '/dataset', body: { name: 'set', desc: 'two classes', dataset_type: 'classification' } },
  { method: 'GET', path: '/dataset', body: { did: 'D0001' } },
  { method: 'GET', path: '/dataset/details', body: { did: 'D0001' } },
  { method: 'PUT', path: '/dataset', body: { did: 'D0001', path: images } },
  { method: 'GET', path: '/dataset', body: { did: 'D0001' }, until: { field: 'dataset_status', values: [4] } },
  { method: 'PUT', path: '/dataset/split', body: { did: 'D0001', val_split: 0.2, test_split: 0.1 } },
  { method: 'GET', path: '/dataset', body: {} },
  { method: 'GET', path: '/dataset/details', body: { did: 'D0001' } },
  { method: 'GET', path: '/file', body: { path: `${images}/a/a0.png` } },
  { method: 'GET', path: '/dataset/image', body: { path: `${images}/a/a0.png` } },
  { method: 'POST', path: '/project', body: { name: 'one', desc: '', project_type: 'classification' } },
  {
    method: 'PUT',
    path: '/workspace',
    body: { struct: 'project', id: 'P0001', attr_dict: { did: 'D0001' } },
  },
  {
    method: 'GET',
    path: '/workspace',
    body: { struct: 'project', id: 'P0001', attr_list: ['did', 'name', 'path', 'type'] },
  },
  { method: 'GET', path: '/project', body: {} },
  { method: 'GET', path: '/project/task/params', body: { pid: 'P0001' } },
  {
    method: 'POST',
    path: '/project/task',
    body: { pid: 'P0001', train: JSON.stringify({ model: 'ResNet18', num_epochs: 2, batch_size: 4 }) },
  },
  { method: 'GET', path: '/project/task', body: { tid: 'T0001' } },
  { method: 'GET', path: '/project/task', body: { tid: 'T0001', resume: '' } },
  { method: 'GET', path: '/project/task', body: { pid: 'P0001' } },
  { method: 'GET', path: '/project/task', body: {} },
  { method: 'GET', path: '/project/task/params', body: { tid: 'T0001' } },
  { method: 'POST', path: '/project/task/params', body: { tid: 'T0001', train: JSON.stringify({ num_epochs: 3 }) } },
  { method: 'GET', path: '/project/task/metrics', body: { tid: 'T0001', type: 'train' } },
  { method: 'GET', path: '/project', body: { id: 'P0001' } },
  { method: 'GET', path: '/dataset', body: { did: 'D0001' } },
  {
    method: 'GET',
    path: '/workspace',
    body: { struct: 'task', id: 'T0001', attr_list: ['pid', 'path', 'parent_id', 'create_time'] },
  },
  { method: 'GET', path: '/project/task/prune', body: { tid: 'T0001' } },
  { method: 'GET', path: '/demo', body: { prj_type: 'classification' } },
  { method: 'DELETE', path: '/project/task', body: { tid: 'T0001' } },
  { method: 'DELETE', path: '/dataset', body: { did: 'D0001' } },
  { method: 'DELETE', path: '/project', body: { pid: 'P0001' } },
  { method: 'DELETE', path: '/dataset', body: { did: 'D0001' } },
  { method: 'GET', path: '/dataset', body: {} },
  { method: 'GET', path: '/file', body: { path: `${workspace}/missing.png` } },
];

/** What clients rely on: field names and JSON types, with one example element of a list and of a map keyed by file. */
export function shape(value: unknown): unknown {
  if (value === null) return 'null';
  if (Array.isArray(value)) return value.length === 0 ? [] : [shape(value[0])];
  if (typeof value === 'object') {
    const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
    const files = entries.length > 0 && entries.every(([key]) => /\.(png|jpg)$/.test(key));
    return files ? { '<file>': shape(entries[0]?.[1]) } : Object.fromEntries(entries.map(([k, v]) => [k, shape(v)]));
  }
  return typeof value;
}
