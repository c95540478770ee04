/** `/workspace`: the folder, and attributes of records by name. */
import { z } from 'zod';
import type { WorkspaceApi } from '../../domain/contracts.js';
import { invalidArgument } from '../../domain/errors.js';
import { defineRoute, type Route } from '../route.js';

export interface WorkspaceServices {
  readonly workspace: WorkspaceApi;
}

const struct = z
  .string()
  .min(1)
  .describe('dataset, project or task; for reading also pretrained_model, exported_model');
const id = z.string().min(1).describe('Id of the record');

export function workspaceRoutes({ workspace }: WorkspaceServices): Route[] {
  const set = (method: 'put' | 'post') =>
    defineRoute({
      method,
      path: '/workspace',
      summary: method === 'put' ? "Changes a record's attributes; binds a dataset to a project" : 'The same as PUT',
      tag: 'workspace',
      input: z.object({
        struct,
        id,
        attr_dict: z
          .record(z.string(), z.unknown())
          .describe('Attributes to set: name, desc; of a project also did, the dataset'),
      }),
      output: z.object({}),
      async handle(input) {
        await workspace.setAttributes(input.struct, input.id, input.attr_dict);
        return {};
      },
    });
  return [
    defineRoute({
      method: 'get',
      path: '/workspace',
      summary: 'The workspace folder, or attributes of one of its records',
      tag: 'workspace',
      input: z.object({
        struct: struct.nullish(),
        id: id.nullish(),
        attr_list: z
          .union([z.array(z.string()), z.string()])
          .nullish()
          .describe('Names of the attributes'),
      }),
      output: z.object({
        dirname: z.string().optional().describe('Without arguments: absolute path of the workspace'),
        attr: z.record(z.string(), z.unknown()).optional(),
      }),
      async handle(input) {
        if (input.struct == null && input.id == null && input.attr_list == null) return { dirname: workspace.dirname };
        for (const field of ['struct', 'id', 'attr_list'] as const) {
          if (input[field] == null) throw invalidArgument(field, `${field} is missing; give struct, id and attr_list.`);
        }
        const list = input.attr_list ?? [];
        const names = typeof list === 'string' ? list.split(',').map((part) => part.trim()) : list;
        return { attr: workspace.attributes(input.struct as string, input.id as string, names) };
      },
    }),
    set('put'),
    set('post'),
  ];
}
