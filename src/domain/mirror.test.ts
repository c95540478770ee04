import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { createServer, request as httpRequest, type IncomingMessage, type RequestListener } from 'node:http';
import type { RequestOptions } from 'node:https';
import type { AddressInfo, LookupFunction } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { OarlockError } from './errors.js';
import { isPrivateAddress, Mirror, type MirrorOptions } from './mirror.js';

const folder = await mkdtemp(join(tmpdir(), 'oarlock-mirror-'));
after(() => rm(folder, { recursive: true, force: true }));

const fails = (code: string, text: RegExp) => (error: unknown) => {
  assert.ok(error instanceof OarlockError, String(error));
  assert.equal(error.code, code, error.message);
  assert.match(error.message, text);
  return true;
};

/** Names → addresses; what is not listed does not exist. */
const resolver =
  (names: Record<string, string>): LookupFunction =>
  (hostname, options, done) => {
    const address = names[hostname];
    if (address === undefined) return done(Object.assign(new Error('unknown host'), { code: 'ENOTFOUND' }), '', 0);
    if (options.all) return done(null, [{ address, family: 4 }]);
    done(null, address, 4);
  };

/** A mirror whose https is carried by plain http to a local server; host names are resolved through `lookup` all the same. */
async function serve(
  listener: RequestListener,
  names: Record<string, string> = {},
  options: Partial<MirrorOptions> = {},
) {
  const server = createServer(listener);
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const { port } = server.address() as AddressInfo;
  after(() => server.close());
  const mirror = new Mirror({
    url: 'https://mirror.example/weights',
    lookup: resolver({ 'mirror.example': '127.0.0.1', ...names }),
    request: (url: URL, given: RequestOptions, done: (response: IncomingMessage) => void) =>
      httpRequest(
        { ...given, host: url.hostname, port, path: url.pathname, protocol: 'http:', headers: { host: url.host } },
        done,
      ),
    ...options,
  });
  return { mirror, port };
}

const sha = (text: string) => createHash('sha256').update(text).digest('hex');

test('promise 9: only https addresses without credentials can be a mirror', () => {
  for (const url of [
    'http://mirror.example/',
    'file:///etc',
    'ftp://x/',
    'nonsense',
    'https://user:pw@mirror.example/',
  ]) {
    assert.throws(() => new Mirror({ url }), fails('invalid_argument', /https/));
  }
});

test('promise 9: private, local and reserved addresses are told from public ones', () => {
  for (const address of [
    ...[
      '10.1.2.3',
      '127.0.0.1',
      '169.254.169.254',
      '172.31.0.1',
      '192.168.0.1',
      '100.64.0.1',
      '0.0.0.0',
      '255.255.255.255',
    ],
    ...[
      '::1',
      '::',
      'fe80::1',
      'fd00::1',
      '::ffff:10.0.0.1',
      '::ffff:7f00:1',
      '64:ff9b::a00:1',
      'ff02::1',
      '2002:7f00:1::',
    ],
    'not an address',
  ]) {
    assert.equal(isPrivateAddress(address), true, address);
  }
  for (const address of ['8.8.8.8', '172.32.0.1', '1.1.1.1', '2606:4700::1111'])
    assert.equal(isPrivateAddress(address), false, address);
});

test('promise 9: a redirect into a private network is not followed, by name or by address', async () => {
  const asked: string[] = [];
  const targets = [
    'https://internal.example/x',
    'https://127.0.0.1/x',
    'https://[::1]/x',
    'https://169.254.169.254/latest',
  ];
  const { mirror } = await serve(
    (request, response) => {
      asked.push(`${request.headers.host}${request.url}`);
      response.writeHead(302, { location: targets[Number(/\d/.exec(request.url ?? '')?.[0])] }).end();
    },
    { 'internal.example': '10.0.0.7' },
  );
  for (let at = 0; at < targets.length; at++) {
    await assert.rejects(
      mirror.download(`f${at}`, join(folder, 'r'), sha('')),
      fails('forbidden_path', /private network/),
    );
  }
  assert.equal(asked.length, targets.length, 'the targets were never asked');
  assert.ok(asked.every((url) => url.startsWith('mirror.example/')));
});

test('promise 9: redirects to other schemes, endless redirects and climbing names are refused', async () => {
  const { mirror } = await serve((request, response) => {
    response
      .writeHead(302, { location: request.url?.endsWith('plain') ? 'http://mirror.example/x' : request.url })
      .end();
  });
  await assert.rejects(mirror.download('plain', join(folder, 'r'), sha('')), fails('not_ready', /no https/));
  await assert.rejects(mirror.download('loop', join(folder, 'r'), sha('')), fails('not_ready', /more than/));
  for (const name of ['../x', '/etc/passwd', 'a//b', 'https://other.example/x', 'a\\..\\b', '']) {
    await assert.rejects(mirror.download(name, join(folder, 'r'), sha('')), fails('invalid_argument', /no file name/));
  }
});

test('too large, broken off, wrong checksum, missing: nothing is left behind', async () => {
  const { mirror } = await serve(
    (request, response) => {
      if (request.url?.endsWith('announced'))
        response.writeHead(200, { 'content-length': 5000 }).end(Buffer.alloc(5000));
      else if (request.url?.endsWith('endless')) response.end(Buffer.alloc(5000));
      else if (request.url?.endsWith('cut')) {
        response.writeHead(200, { 'content-length': 900 });
        response.write('half', () => response.destroy());
      } else if (request.url?.endsWith('other')) response.end('something else');
      else response.writeHead(404).end();
    },
    {},
    { maxBytes: 1000 },
  );
  const dest = join(folder, 'dest');
  await assert.rejects(mirror.download('announced', dest, sha('')), fails('resource_exhausted', /5000 bytes/));
  await assert.rejects(mirror.download('endless', dest, sha('')), fails('resource_exhausted', /at most 1000/));
  await assert.rejects(mirror.download('cut', dest, sha('')), fails('not_ready', /broke off/));
  await assert.rejects(mirror.download('other', dest, sha('x')), fails('not_ready', /checksum/));
  await assert.rejects(mirror.download('none', dest, sha('')), fails('not_found', /no none/));
  assert.deepEqual(await readdir(folder), []);
});

test('an unreachable mirror says so and may be tried again', async () => {
  const { mirror } = await serve(() => {}, { 'mirror.example': undefined as unknown as string });
  await assert.rejects(
    mirror.sums(),
    (error) => fails('not_ready', /cannot be reached/)(error) && (error as OarlockError).retryable,
  );
});

test('a download can be stopped', async () => {
  const { mirror } = await serve((_request, response) => void response.writeHead(200).write('begin'));
  const controller = new AbortController();
  const running = mirror.download('slow', join(folder, 'slow'), sha(''), { signal: controller.signal });
  setTimeout(() => controller.abort(new Error('stopped')), 50);
  await assert.rejects(running, /stopped/);
  assert.deepEqual(await readdir(folder), []);
});

test('files come with their checksums, also over a redirect on the same host', async () => {
  const { mirror } = await serve((request, response) => {
    if (request.url === '/weights/SHA256SUMS')
      response.end(`${sha('weights')}  ./A%20b.pth\n${sha('x')} *other\nnoise\n`);
    else if (request.url === '/weights/moved') response.writeHead(301, { location: '/weights/A%20b.pth' }).end();
    else response.end('weights');
  });
  assert.deepEqual(
    [...(await mirror.sums())],
    [
      ['A%20b.pth', sha('weights')],
      ['other', sha('x')],
    ],
  );
  const seen: number[] = [];
  const dest = join(folder, 'good');
  await mirror.download('moved', dest, sha('weights'), { onProgress: (progress) => seen.push(progress.downloaded) });
  assert.equal(await readFile(dest, 'utf8'), 'weights');
  assert.equal(seen.at(-1), 7);
  await rm(dest);
});
