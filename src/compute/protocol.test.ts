import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { asFromHost, asToHost, encodeLine, type FromHost, LineDecoder } from './protocol.js';

function decode(chunks: Buffer[], maxLength?: number) {
  const messages: unknown[] = [];
  const stray: string[] = [];
  const decoder = new LineDecoder(
    (value) => messages.push(value),
    (text) => stray.push(text),
    maxLength,
  );
  for (const chunk of chunks) decoder.push(chunk);
  decoder.end();
  return { messages, stray };
}

test('lines survive any cut of the stream, inside characters too', () => {
  fc.assert(
    fc.property(
      fc.array(fc.string({ unit: 'grapheme' })),
      fc.infiniteStream(fc.integer({ min: 1, max: 7 })),
      (texts, cuts) => {
        const sent: FromHost[] = texts.map((message) => ({ t: 'log', level: 'info', message }));
        const bytes = Buffer.from(sent.map(encodeLine).join(''));
        const chunks: Buffer[] = [];
        for (let from = 0; from < bytes.length; ) {
          const length = cuts.next().value as number;
          chunks.push(bytes.subarray(from, from + length));
          from += length;
        }
        const { messages, stray } = decode(chunks);
        assert.deepEqual(messages, sent);
        assert.deepEqual(stray, []);
      },
    ),
  );
});

test('prints beside the protocol are set aside, and a message on the same line is found', () => {
  const pong = encodeLine({ t: 'pong', seq: 1 });
  const { messages, stray } = decode([Buffer.from(`srun: job 7 queued\n\nno line end${pong}{"t":"pong","se`)]);
  assert.deepEqual(messages, [{ t: 'pong', seq: 1 }]);
  assert.deepEqual(stray, ['srun: job 7 queued', 'no line end', '{"t":"pong","se']);
});

test('an endless line is refused instead of kept', () => {
  assert.throws(() => decode([Buffer.alloc(600, 'x'), Buffer.alloc(600, 'x')], 1_000), RangeError);
});

test('only messages of the protocol are taken', () => {
  assert.ok(asToHost({ t: 'ping', seq: 1 }));
  assert.ok(asFromHost({ t: 'outcome', id: 'a', outcome: { type: 'failed' } }));
  for (const wrong of [
    null,
    1,
    'x',
    [],
    {},
    { t: 'toString' },
    { t: 'run', id: 1, spec: {} },
    { t: 'run', id: 'a', spec: null },
  ]) {
    assert.equal(asToHost(wrong), undefined);
    assert.equal(asFromHost(wrong), undefined);
  }
});
