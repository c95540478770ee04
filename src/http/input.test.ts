import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { z } from 'zod';
import { OarlockError } from '../domain/errors.js';
import { inputReader, MalformedJson, parseBody } from './input.js';

const schema = z.object({
  tid: z.string().min(1),
  epoch: z.int().min(1).max(1000).nullish(),
  val_split: z.number().min(0).lt(1).optional(),
  quant: z.boolean().default(false),
  type: z.enum(['train', 'eval']).optional(),
  prj_type: z.union([z.string(), z.int()]).optional(),
  gpu_list: z.array(z.int()).optional(),
  attr_list: z.array(z.string()).optional(),
  attr_dict: z.record(z.string(), z.unknown()).optional(),
  train: z.union([z.string(), z.record(z.string(), z.unknown())]).optional(),
  level: z.literal([1, 2]).optional(),
});
const reader = inputReader(schema);
const fromQuery = (query: string) => reader.read(undefined, query).input as Record<string, unknown>;
const refusal = (body: Record<string, unknown> | undefined, query = ''): OarlockError => {
  try {
    reader.read(body, query);
  } catch (error) {
    assert.ok(error instanceof OarlockError);
    assert.equal(error.code, 'invalid_argument');
    return error;
  }
  assert.fail('was accepted');
};

test('wrong arguments are named in one sentence', () => {
  const cases: [Record<string, unknown> | undefined, string, string, RegExp][] = [
    [undefined, '', 'tid', /^tid is missing; it must be text\.$/],
    [{}, '', 'tid', /missing/],
    [{ tid: 7 }, '', 'tid', /^tid must be text, not 7\.$/],
    [{ tid: null }, '', 'tid', /not null/],
    [{ tid: '' }, '', 'tid', /^tid must not be empty\.$/],
    [{ tid: 'T', epoch: 'ten' }, '', 'epoch', /^epoch must be a number, not the text "ten"\.$/],
    [{ tid: 'T', epoch: 1.5 }, '', 'epoch', /^epoch must be a whole number, not 1\.5\.$/],
    [{ tid: 'T', epoch: 0 }, '', 'epoch', /^epoch must be at least 1\.$/],
    [{ tid: 'T', epoch: 1001 }, '', 'epoch', /at most 1000/],
    [{ tid: 'T', val_split: 1 }, '', 'val_split', /^val_split must be less than 1\.$/],
    [{ tid: 'T', type: 'foo' }, '', 'type', /^type must be one of train, eval, not the text "foo"\.$/],
    [{ tid: 'T', gpu_list: [0, 'a'] }, '', 'gpu_list[1]', /gpu_list\[1\] must be a number/],
    [{ tid: 'T', gpu_list: 'x' }, '', 'gpu_list', /must be a list/],
    [{ tid: 'T', prj_type: [] }, '', 'prj_type', /^prj_type must be text or a number, not a list\.$/],
    [{ tid: 'T', attr_dict: [] }, '', 'attr_dict', /must be an object, not a list/],
    [undefined, 'tid=T&epoch=ten', 'epoch', /not the text "ten"/],
    [undefined, 'tid=T&epoch=NaN', 'epoch', /must be a number/],
    [undefined, 'tid=T&epoch=0x10', 'epoch', /must be a number/],
    [undefined, 'tid=T&val_split=Infinity', 'val_split', /must be a number/],
    [undefined, 'tid=T&quant=maybe', 'quant', /must be true or false/],
    [undefined, 'tid=A&tid=B', 'tid', /given 2 times/],
    [undefined, 'tid=T&attr_dict={broken', 'attr_dict', /must be an object/],
    [undefined, 'tid=T&gpu_list=0,x', 'gpu_list[1]', /must be a number/],
  ];
  for (const [body, query, field, message] of cases) {
    const error = refusal(body, query);
    assert.equal(error.context.field, field, error.message);
    assert.match(error.message, message);
  }
  assert.deepEqual(refusal({ epoch: 0, type: 'x' }).context, { field: 'tid', also: ['epoch', 'type'] });
});

test('what a query says is read as the schema expects it', () => {
  const cases: [string, Record<string, unknown>][] = [
    ['tid=T0001', { tid: 'T0001' }],
    ['tid=7', { tid: '7' }],
    ['tid=true', { tid: 'true' }],
    ['tid=T&epoch=12', { tid: 'T', epoch: 12 }],
    ['tid=T&epoch=', { tid: 'T', epoch: null }],
    ['tid=T&epoch=null', { tid: 'T', epoch: null }],
    ['tid=T&epoch=None', { tid: 'T', epoch: null }],
    ['tid=T&val_split=.25', { tid: 'T', val_split: 0.25 }],
    ['tid=T&val_split=2e-1', { tid: 'T', val_split: 0.2 }],
    ['tid=T&val_split=', { tid: 'T' }],
    ['tid=T&quant=True', { tid: 'T', quant: true }],
    ['tid=T&quant=0', { tid: 'T', quant: false }],
    ['tid=T&quant=1', { tid: 'T', quant: true }],
    ['tid=T&quant=False', { tid: 'T', quant: false }],
    ['tid=T&gpu_list=0,1', { tid: 'T', gpu_list: [0, 1] }],
    ['tid=T&gpu_list=0', { tid: 'T', gpu_list: [0] }],
    ['tid=T&gpu_list=0&gpu_list=1', { tid: 'T', gpu_list: [0, 1] }],
    ['tid=T&gpu_list[]=0&gpu_list[]=1', { tid: 'T', gpu_list: [0, 1] }],
    ['tid=T&gpu_list=%5B0,1%5D', { tid: 'T', gpu_list: [0, 1] }],
    ['tid=T&gpu_list=', { tid: 'T' }],
    ['tid=T&attr_list=path,name', { tid: 'T', attr_list: ['path', 'name'] }],
    ['tid=T&attr_list=path,%20name', { tid: 'T', attr_list: ['path', 'name'] }],
    ['tid=T&attr_list=["path"]', { tid: 'T', attr_list: ['path'] }],
    ['tid=T&attr_dict={"did":"D0001"}', { tid: 'T', attr_dict: { did: 'D0001' } }],
    ['tid=T&train={"model":"ResNet18"}', { tid: 'T', train: '{"model":"ResNet18"}' }],
    ['tid=T&prj_type=0', { tid: 'T', prj_type: '0' }],
    ['tid=T&level=2', { tid: 'T', level: 2 }],
    ['tid=T&unknown=1&__proto__=x&constructor=y', { tid: 'T' }],
    ['tid=%E8%8A%B1+%E6%9C%B5%20a', { tid: '花 朵 a' }],
    ['tid=a%252e', { tid: 'a%2e' }],
  ];
  for (const [query, expected] of cases) assert.deepEqual(fromQuery(query), { quant: false, ...expected }, query);
});

test('the body wins key by key and the query fills in', () => {
  const { input, given } = reader.read({ tid: 'B', epoch: null }, 'tid=Q&epoch=3&quant=true&other=1');
  assert.deepEqual(input, { tid: 'B', epoch: null, quant: true });
  assert.deepEqual([...given].sort(), ['epoch', 'quant', 'tid']);
});

test('bodies: empty and null are none, other JSON values are refused', () => {
  const parse = (text: string) => parseBody(Buffer.from(text));
  assert.equal(parse(''), undefined);
  assert.equal(parse('  \n'), undefined);
  assert.equal(parse('null'), undefined);
  assert.deepEqual(parse('{}'), {});
  assert.deepEqual(parse('\ufeff{"a":1}'), { a: 1 });
  for (const text of ['[]', '1', '"x"', 'true']) assert.throws(() => parse(text), { code: 'invalid_argument' }, text);
  for (const text of ['{', '{"a":}', "{'a':1}", '{"a":NaN}', '\0', '{"a":1}{', '<x/>'])
    assert.throws(() => parse(text), MalformedJson, text);
  assert.doesNotThrow(() => parse(`${'{"a":'.repeat(50_000)}1${'}'.repeat(50_000)}`));
});

test('prototype keys do not get through, however they are spelled', () => {
  for (const text of [
    '{"attr_dict":{"__proto__":{"admin":true},"a":1}}',
    '{"attr_dict":{"\\u005f_proto__":{"admin":true},"a":1}}',
  ]) {
    const body = parseBody(Buffer.from(text)) as { attr_dict: object };
    assert.deepEqual(Object.keys(body.attr_dict), ['a']);
    assert.equal((Object.assign({}, body.attr_dict) as { admin?: boolean }).admin, undefined);
  }
  const fromText = fromQuery('tid=T&attr_dict={"__proto__":{"admin":true},"a":1}').attr_dict as object;
  assert.deepEqual(Object.keys(fromText), ['a']);
  assert.equal(({} as { admin?: boolean }).admin, undefined);
});

test('promise 30: 5000 arbitrary bodies and queries end in valid input or a named error, nothing else', () => {
  const names = fc.constantFrom(...Object.keys(schema.shape), '__proto__', 'constructor', 'x');
  const text = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 30 }),
    fc.constantFrom(
      '1',
      '-0',
      '1e999',
      'NaN',
      'null',
      'None',
      '[',
      '[[]]',
      '{}',
      '{"a":',
      '"',
      ',',
      ',,',
      'true',
      '%',
      '%zz',
      '%E0%A4%A',
      '\ud800',
      '\0',
    ),
  );
  const query = fc
    .array(fc.tuple(names, text, fc.constantFrom('', '[]', '[a]')), { maxLength: 6 })
    .map((pairs) => pairs.map(([name, value, suffix]) => `${name}${suffix}=${value}`).join('&'));
  const body = fc.oneof(
    fc.dictionary(names, fc.jsonValue({ maxDepth: 4 })).map((value) => Buffer.from(JSON.stringify(value))),
    fc.uint8Array({ maxLength: 60 }).map((bytes) => Buffer.from(bytes)),
    fc.string({ unit: 'binary', maxLength: 60 }).map((value) => Buffer.from(value)),
  );
  let accepted = 0;
  fc.assert(
    fc.property(body, query, (bytes, search) => {
      try {
        const { input } = reader.read(parseBody(bytes), search);
        assert.ok(schema.safeParse(input).success);
        accepted++;
      } catch (error) {
        assert.ok(error instanceof OarlockError, String(error));
        assert.equal(error.code, 'invalid_argument');
        assert.ok(error.message.length < 400 && !error.message.includes('\n'), error.message);
        assert.equal(typeof error.context.field, 'string');
      }
    }),
    { numRuns: 5000 },
  );
  assert.ok(accepted > 0);
  assert.equal(({} as { x?: unknown }).x, undefined);
});
