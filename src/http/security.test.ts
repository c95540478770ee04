import assert from 'node:assert/strict';
import { hostname } from 'node:os';
import { test } from 'node:test';
import { z } from 'zod';
import type { EdgeConfig } from './app.js';
import { Assets } from './assets.js';
import { defineRoute, type Role, type Route } from './route.js';
import { rootPages } from './routes/root.js';
import { parseAuthority } from './security.js';
import { TestServer } from './testing/client.js';

let calls = 0;
const route = (method: Route['method'], path: string, role?: Role): Route =>
  defineRoute({
    method,
    path,
    summary: path,
    tag: 'test',
    ...(role === undefined ? {} : { role }),
    input: z.object({}),
    output: z.object({}),
    async handle() {
      calls++;
      return {};
    },
  });
const ROUTES = [
  route('get', '/project'),
  route('post', '/project'),
  route('put', '/project'),
  route('delete', '/project'),
  route('delete', '/system', 'admin'),
];
const TOKENS = { admin: 'admin-token-0123456789', run: 'run-token-0123456789', read: 'read-token-0123456789' };

async function withServer(config: Partial<EdgeConfig>, work: (server: TestServer) => Promise<void>): Promise<void> {
  const server = await TestServer.start({
    routes: ROUTES,
    pages: rootPages({ gui: null, pathPrefix: '', assets: new Assets() }),
    config,
  });
  try {
    await work(server);
  } finally {
    await server.stop();
  }
}
const bearer = (token: string) => ({ authorization: `Bearer ${token}` });

test('promise 6: every route without, with a wrong, with a low and with the right token', () =>
  withServer({ tokens: TOKENS }, async (server) => {
    const needs: Record<string, number> = { get: 1, post: 2, put: 2, delete: 2 };
    const rank = { read: 1, run: 2, admin: 3 } as const;
    for (const { method, path, role } of ROUTES) {
      const need = role === 'admin' ? 3 : (needs[method] as number);
      const ask = (headers: Record<string, string>) => server.ask(path, { method: method.toUpperCase(), headers });
      calls = 0;
      for (const headers of [
        {},
        bearer('wrong'),
        { authorization: 'Basic YTpi' },
        { cookie: `oarlock_${server.port}=${TOKENS.admin}` },
      ]) {
        const { status, json, headers: answered } = await ask(headers as Record<string, string>);
        assert.equal(status, 401, `${method} ${path} ${JSON.stringify(headers)}`);
        assert.equal(json.status, -1);
        assert.equal(json.code, 'unauthorized');
        assert.match(String(answered['www-authenticate']), /^Bearer/);
      }
      assert.equal(calls, 0);
      for (const [name, level] of Object.entries(rank)) {
        const { status } = await ask(bearer(TOKENS[name as Role]));
        assert.equal(status, level >= need ? 200 : 403, `${method} ${path} as ${name}`);
      }
      assert.equal(calls, 4 - need);
    }
  }));

test('promise 8: ending all jobs needs the admin role, and answers in the usual shape', () =>
  withServer({ tokens: TOKENS }, async (server) => {
    for (const token of [TOKENS.read, TOKENS.run]) {
      const { status, json } = await server.ask('/system', { method: 'DELETE', headers: bearer(token) });
      assert.equal(status, 403);
      assert.deepEqual(json.context, { role: token === TOKENS.run ? 'run' : 'read', needed: 'admin' });
    }
    const done = await server.ask('/system', { method: 'DELETE', headers: bearer(TOKENS.admin) });
    assert.deepEqual(done.json, { status: 1 });
  }));

test('promise 6: an address that guesses tokens is refused for a while', () =>
  withServer({ tokens: TOKENS }, async (server) => {
    let limited = 0;
    for (let n = 0; n < 30; n++) {
      const { status } = await server.ask('/project', { headers: bearer(`guess-${n}`) });
      if (status === 429) limited++;
    }
    assert.equal(limited, 10);
  }));

test('a link hands the token over as a cookie that works for our own pages only', () =>
  withServer({ tokens: TOKENS }, async (server) => {
    const wrong = await server.ask('/?token=nonsense');
    assert.equal(wrong.status, 401);
    assert.equal(wrong.headers['set-cookie'], undefined);
    const { status, headers, text } = await server.ask(`/?token=${TOKENS.run}`);
    assert.equal(status, 302);
    assert.equal(headers.location, '/');
    assert.equal(headers['cache-control'], 'no-store');
    assert.equal(text, '');
    const set = String(headers['set-cookie']);
    assert.match(set, /; HttpOnly; SameSite=Strict;/);
    assert.ok(!set.includes(TOKENS.run), 'the cookie is not the token');
    const cookie = set.split(';')[0] as string;
    const host = `127.0.0.1:${server.port}`;
    const own = { cookie, origin: `http://${host}`, 'sec-fetch-site': 'same-origin' };
    assert.equal((await server.ask('/project', { headers: { cookie } })).status, 200);
    assert.equal((await server.ask('/project', { method: 'POST', headers: own })).status, 200);
    assert.equal((await server.ask('/system', { method: 'DELETE', headers: own })).status, 403);
    // The same host on another port is another page; a client without origin is no page at all.
    for (const foreign of [
      { cookie, origin: 'http://127.0.0.1:1' },
      { cookie, origin: 'http://localhost:9', 'sec-fetch-site': 'same-site' },
      { cookie, origin: 'https://evil.example', 'sec-fetch-site': 'cross-site' },
      { cookie, 'sec-fetch-site': 'cross-site' },
      { cookie, 'sec-fetch-site': 'same-site' },
      { cookie, origin: 'null' },
    ]) {
      assert.equal((await server.ask('/project', { headers: foreign })).status, 403, JSON.stringify(foreign));
      assert.equal(
        (await server.ask('/project', { method: 'POST', headers: foreign })).status,
        403,
        JSON.stringify(foreign),
      );
    }
    assert.equal((await server.ask('/project', { method: 'POST', headers: { cookie } })).status, 403);
    assert.equal((await server.ask('/', { headers: { cookie } })).status, 200);
    const page = await server.ask('/');
    assert.equal(page.status, 401);
    assert.match(page.text, /token/);
  }));

test('promise 7: pages of other origins get nothing, not even without a token', () =>
  withServer({}, async (server) => {
    calls = 0;
    for (const method of ['GET', 'POST', 'PUT', 'DELETE', 'OPTIONS']) {
      for (const origin of [
        'https://evil.example',
        'http://127.0.0.1.evil.example',
        'http://evil.example:8080',
        'null',
        'file://',
        'http://[',
        'x',
      ]) {
        const { status, headers } = await server.ask('/project', {
          method,
          headers: { origin, ...(method === 'OPTIONS' ? { 'access-control-request-method': 'DELETE' } : {}) },
        });
        assert.equal(status, 403, `${method} ${origin}`);
        assert.equal(headers['access-control-allow-origin'], undefined);
      }
    }
    // A picture or script tag sends no Origin, but says where it stands.
    assert.equal(
      (await server.ask('/project', { headers: { 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'no-cors' } }))
        .status,
      403,
    );
    assert.equal(
      (await server.ask('/project', { headers: { 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'navigate' } }))
        .status,
      403,
    );
    assert.equal(calls, 0);
    // Following a link to our page is fine.
    assert.equal(
      (await server.ask('/', { headers: { 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'navigate' } })).status,
      200,
    );
  }));

test('promise 7: requests under a foreign host name are refused (DNS rebinding)', () =>
  withServer({ allowHosts: ['gpu1.example.org'], publicHost: 'train.example.org:443' }, async (server) => {
    calls = 0;
    for (const host of [
      'evil.example',
      'evil.example:8080',
      'localhost.evil.example',
      '127.0.0.1.evil.example',
      'xlocalhost',
    ]) {
      const { status, json } = await server.ask('/project', { headers: { host } });
      assert.equal(status, 403, host);
      assert.equal(json.context.field, 'Host');
    }
    assert.equal(calls, 0);
    for (const host of [
      'localhost',
      'LOCALHOST:1',
      `127.0.0.1:${server.port}`,
      '[::1]:80',
      '192.168.1.20',
      hostname(),
      'gpu1.example.org',
      'train.example.org',
    ]) {
      assert.equal((await server.ask('/project', { headers: { host } })).status, 200, host);
    }
  }));

test('CORS as the page needs it, for allowed origins only', () =>
  withServer({ allowOrigins: ['https://gui.example', 'null'] }, async (server) => {
    for (const origin of ['https://gui.example', 'null', 'http://127.0.0.1:9999', 'http://localhost:3000']) {
      const got = await server.ask('/project', { headers: { origin } });
      assert.equal(got.status, 200, origin);
      assert.equal(got.headers['access-control-allow-origin'], origin);
      assert.equal(got.headers['access-control-allow-credentials'], 'true');
      assert.match(String(got.headers.vary), /Origin/);
      const preflight = await server.ask('/project', {
        method: 'OPTIONS',
        headers: {
          origin,
          'access-control-request-method': 'DELETE',
          'access-control-request-headers': 'content-type',
        },
      });
      assert.equal(preflight.status, 204);
      assert.equal(preflight.headers['access-control-allow-headers'], 'content-type');
      assert.equal(preflight.headers['access-control-allow-methods'], 'DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT');
      // Failures can be read by the page too.
      const failed = await server.ask('/nowhere', { headers: { origin } });
      assert.equal(failed.headers['access-control-allow-origin'], origin);
    }
    const nasty = await server.ask('/project', {
      method: 'OPTIONS',
      headers: {
        origin: 'null',
        'access-control-request-method': 'PUT',
        'access-control-request-headers': 'x'.repeat(2000),
      },
    });
    assert.equal(nasty.headers['access-control-allow-headers'], undefined);
  }));

test('host names', () => {
  assert.deepEqual(parseAuthority('Example.ORG.:80'), { name: 'example.org', port: '80' });
  assert.deepEqual(parseAuthority('[::1]:8080'), { name: '::1', port: '8080' });
  for (const text of [undefined, '', ' ', 'a:b', 'a:1:2', 'a/b', 'a@b', '[x]', '-', `${'a'.repeat(300)}`]) {
    assert.equal(parseAuthority(text), undefined, String(text));
  }
});
