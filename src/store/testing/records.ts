/** Records for tests. */
import type { Logger } from '../../compute/logger.js';
import { DatasetStatus, TaskStatus } from '../../domain/enums.js';
import type { DatasetRecord, ProjectRecord, TaskRecord } from '../../domain/records.js';

export const silentLog: Logger = { debug() {}, info() {}, warn() {}, error() {} };

export const datasetRecord = (id: string): DatasetRecord => ({
  id,
  name: 'set',
  desc: '',
  type: 'classification',
  path: `/ws/datasets/${id}`,
  create_time: '2024-05-02 10:11:12',
  status: DatasetStatus.XEMPTY,
  message: '',
  source: null,
  demo: false,
  counts: null,
  content: 0,
});

export const projectRecord = (id: string, did = ''): ProjectRecord => ({
  id,
  name: 'project',
  desc: '',
  type: 'classification',
  did,
  path: `/ws/projects/${id}`,
  create_time: '2024-05-02 10:11:12',
});

export const taskRecord = (id: string, pid: string): TaskRecord => ({
  id,
  name: '',
  desc: '',
  pid,
  path: `/ws/projects/${pid}/${id}`,
  create_time: '2024-05-02 10:11:12',
  parent_id: '',
  status: TaskStatus.XINIT,
  message: '',
  settled: TaskStatus.XINIT,
  params: {},
});
