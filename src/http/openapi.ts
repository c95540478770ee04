/** `/openapi.json` from the routes' own schemas. */
import { z } from 'zod';
import type { Route } from './route.js';

type Json = Record<string, unknown>;

const FAILURE_SCHEMA: Json = {
  type: 'object',
  description: 'Why a call failed. Handled calls answer HTTP 200 also when they fail: look at `status`.',
  required: ['status', 'message', 'code', 'context', 'hint', 'retryable'],
  properties: {
    status: { const: -1 },
    message: { type: 'string', description: 'One sentence for people.' },
    code: {
      enum: [
        'not_found',
        'invalid_argument',
        'conflict',
        'not_ready',
        'unsupported',
        'forbidden_path',
        'unauthorized',
        'resource_exhausted',
        'internal',
      ],
    },
    context: { type: 'object', description: 'Names and numbers belonging to the message, such as `field` or `state`.' },
    hint: { type: ['string', 'null'], description: 'What to do about it.' },
    retryable: { type: 'boolean', description: 'Whether the same call can succeed later unchanged.' },
  },
};

const schemaOf = (schema: z.ZodType): Json => {
  const { $schema: _, ...json } = z.toJSONSchema(schema, {
    io: 'input',
    unrepresentable: 'any',
    target: 'draft-2020-12',
  }) as Json;
  return json;
};

const isObjectLike = (schema: Json): boolean => {
  const branches = (schema.anyOf ?? schema.oneOf) as Json[] | undefined;
  if (branches !== undefined) return branches.some(isObjectLike);
  return [schema.type].flat().includes('object');
};

const isList = (schema: Json): boolean => {
  const branches = (schema.anyOf ?? schema.oneOf) as Json[] | undefined;
  return branches !== undefined ? branches.some(isList) : [schema.type].flat().includes('array');
};

function queryParameters(input: Json): Json[] {
  const required = new Set((input.required as string[] | undefined) ?? []);
  return Object.entries((input.properties as Record<string, Json> | undefined) ?? {}).map(([name, schema]) => {
    const { description, ...rest } = schema;
    const parameter: Json = { name, in: 'query', required: required.has(name) };
    if (description !== undefined) parameter.description = description;
    if (isObjectLike(rest)) return { ...parameter, content: { 'application/json': { schema: rest } } };
    if (isList(rest)) return { ...parameter, style: 'form', explode: false, schema: rest };
    return { ...parameter, schema: rest };
  });
}

const envelopeOf = (output: Json): Json => ({
  anyOf: [
    {
      allOf: [
        {
          type: 'object',
          required: ['status'],
          properties: {
            status: {
              enum: [1, -1],
              description: '1 = done; -1 with these fields = the job they tell about has failed.',
            },
          },
        },
        output,
      ],
    },
    { $ref: '#/components/schemas/Failure' },
  ],
});

const operationId = (route: Route): string =>
  route.method + route.path.replace(/(?:^|[/_])(\w)/g, (_, letter: string) => letter.toUpperCase());

function operation(route: Route): Json {
  const input = schemaOf(route.input);
  const inQuery = route.method === 'get' || route.method === 'delete';
  const content: Json = { 'application/json': { schema: envelopeOf(schemaOf(route.output)) } };
  for (const type of route.produces ?? []) content[type] = { schema: {} };
  return {
    operationId: operationId(route),
    summary: route.summary,
    tags: [route.tag],
    description: [
      inQuery
        ? 'The arguments may also be sent as one JSON object in the request body, as PaddleX clients do.'
        : 'The arguments may also be sent in the query string.',
      `Needs the role \`${route.role}\` when the server has a token.`,
    ].join(' '),
    ...(inQuery
      ? { parameters: queryParameters(input) }
      : {
          requestBody: {
            required: ((input.required as string[] | undefined) ?? []).length > 0,
            content: { 'application/json': { schema: input } },
          },
        }),
    responses: {
      200: { description: 'Done, or a failure with `status` -1.', content },
      default: { $ref: '#/components/responses/Refused' },
    },
  };
}

const text = (type: string, description: string, schema: Json = { type: 'string' }): Json => ({
  200: { description, content: { [type]: { schema } } },
});

/** The parts of the server that are no PaddleX routes. */
const EXTRA_PATHS: Json = {
  '/healthz': {
    get: {
      operationId: 'getHealthz',
      summary: 'Whether the server works',
      tags: ['server'],
      security: [],
      responses: {
        ...text('application/json', 'It does.', {
          type: 'object',
          required: ['ok'],
          properties: { ok: { type: 'boolean' } },
        }),
        503: {
          description: 'It does not; `notices` say why.',
          content: { 'application/json': { schema: { type: 'object' } } },
        },
      },
    },
  },
  '/metrics': {
    get: {
      operationId: 'getMetrics',
      summary: 'Numbers for Prometheus',
      tags: ['server'],
      responses: {
        ...text('text/plain', 'Prometheus text format.'),
        default: { $ref: '#/components/responses/Refused' },
      },
    },
  },
  '/events': {
    get: {
      operationId: 'getEvents',
      summary: 'State changes and training progress as they happen (Server-Sent Events)',
      description:
        'Each event has an `id`; a client that reconnects with `Last-Event-ID` gets what it missed, or an event `reset` when that is no longer known and everything should be loaded anew.',
      tags: ['server'],
      parameters: [
        {
          name: 'types',
          in: 'query',
          required: false,
          style: 'form',
          explode: false,
          description: 'Only these kinds.',
          schema: { type: 'array', items: { type: 'string' } },
        },
        { name: 'Last-Event-ID', in: 'header', required: false, schema: { type: 'string' } },
      ],
      responses: {
        ...text('text/event-stream', 'A stream that stays open.'),
        default: { $ref: '#/components/responses/Refused' },
      },
    },
  },
  '/board/{tid}/data': {
    get: {
      operationId: 'getBoardData',
      summary: "A task's training curves",
      tags: ['task'],
      parameters: [{ name: 'tid', in: 'path', required: true, schema: { type: 'string' } }],
      responses: {
        ...text(
          'application/json',
          'Curves by metric as lists of [x, y]: x is the global step for `train`, the epoch for `eval`.',
          {
            anyOf: [
              { type: 'object', required: ['status', 'train', 'eval'] },
              { $ref: '#/components/schemas/Failure' },
            ],
          },
        ),
        default: { $ref: '#/components/responses/Refused' },
      },
    },
  },
};

/** The whole document. */
export function openApi(
  routes: readonly Route[],
  options: { version: string; pathPrefix: string; protected: boolean },
): Json {
  const paths: Record<string, Json> = {};
  for (const route of routes) {
    const item = paths[route.path] ?? {};
    paths[route.path] = item;
    item[route.method] = operation(route);
  }
  const tags = [...new Set([...routes.map((route) => route.tag), 'server', 'task'])].map((name) => ({ name }));
  return {
    openapi: '3.1.0',
    info: {
      title: 'Oarlock',
      version: options.version,
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
      description:
        'The PaddleX RESTful API. Answers are JSON objects with `status` 1 (done) or -1 (failed, with `message` and `code`). Long work answers at once; poll the matching GET or follow `/events`.',
    },
    servers: [{ url: options.pathPrefix || '/' }],
    tags,
    paths: { ...paths, ...EXTRA_PATHS },
    ...(options.protected ? { security: [{ bearer: [] }] } : {}),
    components: {
      schemas: { Failure: FAILURE_SCHEMA },
      responses: {
        Refused: {
          description:
            'Refused before the call was handled: no or a wrong token (401), role or origin not allowed (403), body too slow (408) or too large (413), too busy (429).',
          content: { 'application/json': { schema: { $ref: '#/components/schemas/Failure' } } },
        },
      },
      securitySchemes: { bearer: { type: 'http', scheme: 'bearer' } },
    },
  };
}
