import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Validator } from '@seriousme/openapi-schema-validator';
import { z } from 'zod';
import { openApi } from './openapi.js';
import { defineRoute, type Route } from './route.js';

const routes: Route[] = [
  defineRoute({
    method: 'get',
    path: '/workspace',
    summary: 'Folder, or attributes',
    tag: 'workspace',
    input: z.object({
      struct: z.enum(['dataset', 'project']).optional().describe('Kind'),
      attr_list: z.array(z.string()).optional(),
      filter: z.record(z.string(), z.unknown()).optional(),
      id: z.union([z.string(), z.int()]),
    }),
    output: z.object({ dirname: z.string().optional(), time: z.date().optional() }),
    handle: async () => ({}),
  }),
  defineRoute({
    method: 'put',
    path: '/workspace',
    summary: 'Set attributes',
    tag: 'workspace',
    input: z.object({ attr_dict: z.record(z.string(), z.unknown()), n: z.string().transform(Number).optional() }),
    output: z.object({}),
    produces: ['text/plain'],
    handle: async () => ({}),
  }),
];
const options = { version: '1.2.3', pathPrefix: '/x', protected: true };

test('the description is valid OpenAPI 3.1 by an independent validator', async () => {
  const result = await new Validator().validate(openApi(routes, options) as never);
  assert.deepEqual(result.errors ?? [], []);
  assert.equal(result.valid, true);
});

test('GET arguments are query parameters, lists comma-separated, objects as JSON', () => {
  // biome-ignore lint/suspicious/noExplicitAny: walks through plain JSON
  const document = openApi(routes, options) as any;
  const get = document.paths['/workspace'].get;
  const byName = Object.fromEntries(get.parameters.map((p: { name: string }) => [p.name, p]));
  assert.deepEqual(byName.struct, {
    name: 'struct',
    in: 'query',
    required: false,
    description: 'Kind',
    schema: { type: 'string', enum: ['dataset', 'project'] },
  });
  assert.equal(byName.attr_list.explode, false);
  assert.ok(byName.filter.content['application/json']);
  assert.equal(byName.id.required, true);
  assert.match(get.description, /request body/);
  const put = document.paths['/workspace'].put;
  assert.deepEqual(put.requestBody.content['application/json'].schema.required, ['attr_dict']);
  assert.ok(put.responses[200].content['text/plain']);
  assert.deepEqual(document.servers, [{ url: '/x' }]);
  assert.ok(!JSON.stringify(document).includes('"$ref":"#/$defs'));
});
