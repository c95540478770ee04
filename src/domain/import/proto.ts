/**
 * The workspace file of PaddleX (protobuf, package `suitebackend`), declared here so that nothing is generated.
 * Field numbers and types are those of PaddleX 2.x; empty fields are absent on the wire.
 */
import protobuf from 'protobufjs/light.js';

export interface DatasetMessage {
  id: string;
  name: string;
  desc: string;
  type: string;
  path: string;
  create_time: string;
}
export interface ProjectMessage extends DatasetMessage {
  did: string;
}
export interface TaskMessage {
  id: string;
  name: string;
  desc: string;
  pid: string;
  path: string;
  create_time: string;
  parent_id: string;
}
export interface PretrainedMessage {
  id: string;
  name: string;
  model: string;
  type: string;
  pid: string;
  tid: string;
  create_time: string;
  path: string;
}
export interface ExportedMessage extends PretrainedMessage {
  exported_type: number;
}
export interface WorkspaceMessage {
  version: string;
  path: string;
  datasets: Record<string, DatasetMessage>;
  projects: Record<string, ProjectMessage>;
  tasks: Record<string, TaskMessage>;
  max_dataset_id: number;
  max_project_id: number;
  max_task_id: number;
  current_time: string;
  max_pretrained_model_id: number;
  pretrained_models: Record<string, PretrainedMessage>;
  max_exported_model_id: number;
  exported_models: Record<string, ExportedMessage>;
}

export interface Messages {
  Dataset: DatasetMessage;
  Project: ProjectMessage;
  Task: TaskMessage;
  Workspace: WorkspaceMessage;
}

type Fields = Record<string, protobuf.IField | protobuf.IMapField>;

const texts = (...names: string[]): Fields =>
  Object.fromEntries(names.map((name, at) => [name, { type: 'string', id: at + 1 }]));
const map = (type: string, id: number): protobuf.IMapField => ({ keyType: 'string', type, id });

const ROOT = protobuf.Root.fromJSON({
  nested: {
    suitebackend: {
      nested: {
        Dataset: { fields: texts('id', 'name', 'desc', 'type', 'path', 'create_time') },
        Project: { fields: texts('id', 'name', 'desc', 'type', 'did', 'path', 'create_time') },
        Task: { fields: texts('id', 'name', 'desc', 'pid', 'path', 'create_time', 'parent_id') },
        PretrainedModel: { fields: texts('id', 'name', 'model', 'type', 'pid', 'tid', 'create_time', 'path') },
        ExportedModel: {
          fields: {
            ...texts('id', 'name', 'model', 'type', 'pid', 'tid', 'create_time', 'path'),
            exported_type: { type: 'int32', id: 9 },
          },
        },
        Workspace: {
          fields: {
            version: { type: 'string', id: 1 },
            path: { type: 'string', id: 2 },
            datasets: map('Dataset', 3),
            projects: map('Project', 4),
            tasks: map('Task', 5),
            max_dataset_id: { type: 'int32', id: 6 },
            max_project_id: { type: 'int32', id: 7 },
            max_task_id: { type: 'int32', id: 8 },
            current_time: { type: 'string', id: 9 },
            max_pretrained_model_id: { type: 'int32', id: 10 },
            pretrained_models: map('PretrainedModel', 11),
            max_exported_model_id: { type: 'int32', id: 12 },
            exported_models: map('ExportedModel', 13),
          },
        },
      },
    },
  },
} as protobuf.INamespace);

/** Field names stay as they are on the wire's schema (`create_time`), so messages read like PaddleX's own objects. */
const type = (name: string): protobuf.Type => ROOT.lookupType(`suitebackend.${name}`);

/** @throws Error when the bytes are no such message. */
export function decode<K extends keyof Messages>(name: K, bytes: Uint8Array): Messages[K] {
  const message = type(name).decode(bytes);
  return type(name).toObject(message, { defaults: true, objects: true }) as Messages[K];
}

export function encode<K extends keyof Messages>(name: K, message: Partial<Messages[K]>): Uint8Array {
  return type(name).encode(type(name).fromObject(message)).finish();
}
