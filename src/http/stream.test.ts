import assert from 'node:assert/strict';
import { get, type IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import { after, before, test } from 'node:test';
import { EventBus } from '../domain/events.js';
import { createApp } from './app.js';
import { EventStreams } from './stream.js';
import { OPEN_CONFIG, TestServer } from './testing/client.js';

const quiet = { error() {}, warn() {}, info() {}, debug() {} } as never;
let bus: EventBus;
let streams: EventStreams;
let server: TestServer;

before(async () => {
  bus = new EventBus(16, 1000);
  streams = new EventStreams(bus, { maxStreams: 3, heartbeatMs: 50, maxBehindBytes: 200_000 });
  server = await TestServer.around(createApp({ routes: [], pages: [streams.page()], config: OPEN_CONFIG, log: quiet }));
});
after(async () => {
  streams.close();
  await server.stop();
});

interface Stream {
  response: IncomingMessage;
  text(): string;
  /** Waits until the text matches. */
  until(pattern: RegExp): Promise<string>;
  close(): void;
}

function open(path = '/events', headers: Record<string, string> = {}): Promise<Stream> {
  return new Promise((resolve, reject) => {
    const sent = get({ port: server.port, host: '127.0.0.1', path, headers, agent: false }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk) => {
        text += chunk;
      });
      response.on('error', () => {});
      resolve({
        response,
        text: () => text,
        async until(pattern) {
          for (let n = 0; n < 200 && !pattern.test(text); n++) await new Promise((done) => setTimeout(done, 10));
          assert.match(text, pattern);
          return text;
        },
        close: () => sent.destroy(),
      });
    });
    sent.on('error', reject);
  });
}
const gone = async () => {
  for (let n = 0; n < 100 && streams.size > 0; n++) await new Promise((done) => setTimeout(done, 10));
  assert.equal(streams.size, 0);
};

test('too many streams are refused, and a closed one makes room', async () => {
  const three = await Promise.all([open(), open(), open()]);
  const fourth = await server.ask('/events');
  assert.equal(fourth.status, 429);
  assert.equal(fourth.json.code, 'resource_exhausted');
  for (const one of three) one.close();
  await gone();
  const again = await open();
  assert.equal(again.response.statusCode, 200);
  again.close();
  await gone();
  assert.equal(bus.listeners, 0);
});

test('a client that does not read is cut off instead of filling memory', async () => {
  const socket = connect(server.port, '127.0.0.1');
  socket.on('error', () => {});
  socket.write('GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n');
  socket.pause();
  for (let n = 0; n < 100 && streams.size === 0; n++) await new Promise((done) => setTimeout(done, 10));
  const message = 'x'.repeat(100_000);
  for (let n = 0; n < 400 && streams.size > 0; n++) {
    bus.publish('system', { message });
    await new Promise((done) => setImmediate(done));
  }
  await gone();
  socket.destroy();
});

test('events arrive live with id, kind and JSON that cannot break the stream', async () => {
  const stream = await open();
  assert.equal(stream.response.headers['content-type'], 'text/event-stream; charset=utf-8');
  assert.equal(stream.response.headers['cache-control'], 'no-cache, no-transform');
  await stream.until(/event: hello/);
  const id = bus.publish('system', { message: 'a\n\nevent: fake\ndata: <b>' });
  const text = await stream.until(new RegExp(`id: ${id}\n`));
  assert.ok(
    text.includes(`id: ${id}\nevent: system\ndata: {"message":"a\\n\\nevent: fake\\ndata: \\u003cb>"}\n\n`),
    text,
  );
  await stream.until(/: still here/);
  stream.close();
  await gone();
});

test('Last-Event-ID brings what was missed, once and in order', async () => {
  const first = bus.publish('project', { id: 'P0001', action: 'created' });
  bus.publish('task', { id: 'T0001', pid: 'P0001', action: 'created' });
  const last = bus.publish('project', { id: 'P0001', action: 'changed' });
  for (const [path, headers] of [
    ['/events', { 'last-event-id': String(first) }],
    [`/events?last_event_id=${first}`, {}],
  ] as const) {
    const stream = await open(path, headers);
    const text = await stream.until(new RegExp(`id: ${last}\n`));
    assert.ok(!text.includes('reset'));
    assert.ok(text.indexOf(`id: ${first + 1}\nevent: task`) < text.indexOf(`id: ${last}\nevent: project`));
    stream.close();
  }
  const filtered = await open('/events?types=task,eval', { 'last-event-id': String(first) });
  bus.publish('project', { id: 'P0009', action: 'created' });
  bus.publish('eval', { id: 'T0001', epoch: 1, metrics: {} });
  const text = await filtered.until(/event: eval/);
  assert.ok(text.includes('event: task') && !text.includes('event: project'));
  filtered.close();
  await gone();
});

test('whoever missed too much, or comes with a foreign id, is told to load anew', async () => {
  for (let n = 0; n < 40; n++) bus.publish('system', { message: String(n) });
  for (const id of ['1000', '99999999', 'abc', '-1', '1.5']) {
    const stream = await open('/events', { 'last-event-id': id });
    await stream.until(new RegExp(`id: ${bus.lastId}\nevent: reset\n`));
    stream.close();
  }
  await gone();
});

test('HEAD opens no stream', async () => {
  const { status, headers } = await server.ask('/events', { method: 'HEAD' });
  assert.equal(status, 200);
  assert.equal(headers['content-type'], 'text/event-stream; charset=utf-8');
  assert.equal(streams.size, 0);
});
