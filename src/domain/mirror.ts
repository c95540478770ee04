/**
 * Downloads from the one address that the operator configured; without it nothing ever leaves the machine.
 * A mirror is a plain https folder with a `SHA256SUMS` file (the output of `sha256sum`) that names every file in it.
 */
import { createHash } from 'node:crypto';
import { lookup as systemLookup } from 'node:dns';
import { createWriteStream } from 'node:fs';
import { open, rm } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import { request as httpsRequest, type RequestOptions } from 'node:https';
import { BlockList, isIP, type LookupFunction } from 'node:net';
import { OarlockError } from './errors.js';

export interface MirrorOptions {
  /** `https://…`, a folder. */
  url: string;
  /** Largest file that is accepted, in bytes. */
  maxBytes?: number;
  /** A connection without a byte for so long is given up, in ms. */
  idleMs?: number;
  /** For tests. */
  lookup?: LookupFunction;
  /** For tests. */
  request?: (
    url: URL,
    options: RequestOptions,
    done: (response: IncomingMessage) => void,
  ) => { end(): void; on(event: string, listener: (error: Error) => void): unknown };
}

export interface DownloadProgress {
  downloaded: number;
  /** Bytes in all; 0 when the server does not say. */
  total: number;
  bytesPerSecond: number;
}

export interface DownloadOptions {
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: DownloadProgress) => void) | undefined;
}

const MAX_REDIRECTS = 5;
const MAX_SUMS_BYTES = 1 << 20;
const DEFAULT_MAX_BYTES = 8 * 2 ** 30;

/** Addresses that a redirect must not lead to: this machine, local networks, cloud metadata, reserved ranges. */
const PRIVATE = new BlockList();
for (const [net, bits] of [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.0.2.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['198.51.100.0', 24],
  ['203.0.113.0', 24],
  ['224.0.0.0', 4],
  ['240.0.0.0', 4],
] as const) {
  PRIVATE.addSubnet(net, bits, 'ipv4');
}
for (const [net, bits] of [
  ['::', 127],
  ['64:ff9b::', 96],
  ['100::', 64],
  ['2001:db8::', 32],
  ['2002::', 16],
  ['fc00::', 7],
  ['fe80::', 10],
  ['ff00::', 8],
] as const) {
  PRIVATE.addSubnet(net, bits, 'ipv6');
}

/** Whether an address literal is not a public one; IPv4 addresses mapped into IPv6 are judged as IPv4. */
export function isPrivateAddress(address: string): boolean {
  const family = isIP(address);
  if (family === 0) return true;
  return PRIVATE.check(address, family === 4 ? 'ipv4' : 'ipv6');
}

const failed = (message: string, hint?: string, cause?: unknown): OarlockError =>
  new OarlockError('not_ready', message, { retryable: true, ...(hint === undefined ? {} : { hint }), cause });

export class Mirror {
  readonly #base: URL;
  readonly #maxBytes: number;
  readonly #idleMs: number;
  readonly #lookup: LookupFunction;
  readonly #request: NonNullable<MirrorOptions['request']>;

  /** @throws OarlockError `invalid_argument` unless `url` is an https folder without user and password. */
  constructor(options: MirrorOptions) {
    const url = URL.canParse(options.url) ? new URL(options.url) : undefined;
    if (url?.protocol !== 'https:' || url.username !== '' || url.password !== '') {
      throw new OarlockError('invalid_argument', 'The mirror must be an https:// address without user and password.', {
        context: { field: 'mirror' },
      });
    }
    if (!url.pathname.endsWith('/')) url.pathname += '/';
    url.search = '';
    url.hash = '';
    this.#base = url;
    this.#maxBytes = options.maxBytes ?? DEFAULT_MAX_BYTES;
    this.#idleMs = options.idleMs ?? 60_000;
    this.#lookup = options.lookup ?? systemLookup;
    this.#request = options.request ?? httpsRequest;
  }

  /** File name → SHA-256 (lower-case hex) of everything the mirror offers. */
  async sums(options: DownloadOptions = {}): Promise<Map<string, string>> {
    const chunks: Buffer[] = [];
    const response = await this.#get('SHA256SUMS', options.signal);
    await this.#read(response, MAX_SUMS_BYTES, 'SHA256SUMS', options, (chunk) => chunks.push(chunk));
    const sums = new Map<string, string>();
    for (const line of Buffer.concat(chunks).toString('utf8').split('\n')) {
      const match = /^([0-9a-f]{64}) [ *](?:\.\/)?(.+?)\r?$/i.exec(line);
      if (match) sums.set(match[2] as string, (match[1] as string).toLowerCase());
    }
    return sums;
  }

  /**
   * Downloads `name` to `dest` and checks it against `sha256`; on any failure `dest` is removed.
   * @throws OarlockError `not_found`, `not_ready` (network, wrong checksum), `resource_exhausted` (too large).
   */
  async download(name: string, dest: string, sha256: string, options: DownloadOptions = {}): Promise<void> {
    try {
      const hash = createHash('sha256');
      const response = await this.#get(name, options.signal);
      const file = createWriteStream(dest, { flags: 'wx', flush: true });
      const finished = new Promise<void>((done, fail) => file.on('close', done).on('error', fail));
      finished.catch(() => {});
      try {
        await this.#read(response, this.#maxBytes, name, options, (chunk) => {
          hash.update(chunk);
          if (file.errored) throw file.errored;
          return file.write(chunk)
            ? undefined
            : new Promise<void>((done) => file.once('drain', done).once('close', done));
        });
      } finally {
        file.end();
        await finished;
      }
      if (hash.digest('hex') !== sha256) {
        throw failed(
          `The downloaded ${name} does not have the checksum that the mirror states.`,
          'Try again; if it persists, the mirror is damaged.',
        );
      }
      const handle = await open(dest, 'r');
      await handle.sync().finally(() => handle.close());
    } catch (error) {
      await rm(dest, { force: true });
      throw error;
    }
  }

  async #get(name: string, signal: AbortSignal | undefined): Promise<IncomingMessage> {
    // A mirror's own list is remote input too: no absolute URLs, no climbing out of the folder.
    const path = name.split('/');
    if (path.some((part) => part === '' || part === '.' || part === '..') || name.includes('\\')) {
      throw new OarlockError('invalid_argument', `"${name}" is no file name of a mirror.`);
    }
    let url = new URL(path.map(encodeURIComponent).join('/'), this.#base);
    for (let hop = 0; hop <= MAX_REDIRECTS; hop++) {
      const response = await this.#once(url, signal);
      const status = response.statusCode ?? 0;
      if (status >= 200 && status < 300) return response;
      response.destroy();
      if (![301, 302, 303, 307, 308].includes(status)) {
        if (status === 404) throw new OarlockError('not_found', `The mirror has no ${name}.`);
        throw failed(`The mirror answered ${status} for ${name}.`);
      }
      url = this.#follow(url, response.headers.location);
    }
    throw failed(`The mirror redirects ${name} more than ${MAX_REDIRECTS} times.`);
  }

  #follow(from: URL, location: string | undefined): URL {
    const url = location !== undefined && URL.canParse(location, from.href) ? new URL(location, from) : undefined;
    if (url?.protocol !== 'https:' || url.username !== '' || url.password !== '') {
      throw failed('The mirror redirects to something that is no https address.');
    }
    return url;
  }

  #once(url: URL, signal: AbortSignal | undefined): Promise<IncomingMessage> {
    // The configured host is the operator's choice and often on the local network; other hosts must be public.
    const trusted = url.host === this.#base.host;
    const literal = url.hostname.replace(/^\[|\]$/g, '');
    if (!trusted && isIP(literal) !== 0 && isPrivateAddress(literal)) return Promise.reject(leadsInside(url));
    return new Promise((done, fail) => {
      const lookup = trusted ? this.#lookup : publicOnly(this.#lookup, url);
      // A fresh connection each: a pooled socket would skip the address check.
      const options: RequestOptions = {
        agent: false,
        lookup,
        timeout: this.#idleMs,
        ...(signal === undefined ? {} : { signal }),
      };
      const request = this.#request(url, options, done);
      request.on('timeout', () =>
        (request as { destroy?(error: Error): void }).destroy?.(new Error('no answer in time')),
      );
      request.on('error', (error) => {
        if (signal?.aborted) fail(signal.reason);
        else if (error instanceof OarlockError) fail(error);
        else
          fail(
            failed(
              `The mirror ${this.#base.host} cannot be reached: ${error.message}.`,
              'Check the network or the configured mirror address.',
              error,
            ),
          );
      });
      request.end();
    });
  }

  async #read(
    response: IncomingMessage,
    limit: number,
    name: string,
    options: DownloadOptions,
    sink: (chunk: Buffer) => unknown,
  ): Promise<void> {
    const tooLarge = (bytes: number) =>
      new OarlockError(
        'resource_exhausted',
        `${name} on the mirror has ${bytes} bytes; at most ${limit} are accepted.`,
        {
          context: { bytes, limit },
          retryable: false,
        },
      );
    const total = Number(response.headers['content-length'] ?? 0) || 0;
    const started = performance.now();
    let downloaded = 0;
    let told = 0;
    try {
      if (total > limit) throw tooLarge(total);
      for await (const chunk of response as AsyncIterable<Buffer>) {
        options.signal?.throwIfAborted();
        downloaded += chunk.length;
        if (downloaded > limit) throw tooLarge(downloaded);
        await sink(chunk);
        const now = performance.now();
        if (now - told > 200) {
          told = now;
          options.onProgress?.({
            downloaded,
            total,
            bytesPerSecond: downloaded / Math.max((now - started) / 1000, 1e-3),
          });
        }
      }
    } catch (error) {
      response.destroy();
      if (options.signal?.aborted) throw options.signal.reason;
      if (error instanceof OarlockError || (error as NodeJS.ErrnoException).syscall === 'write') throw error;
      throw failed(`The download of ${name} broke off: ${(error as Error).message}.`, 'Try again.', error);
    }
    if (total > 0 && downloaded !== total)
      throw failed(`The download of ${name} ended after ${downloaded} of ${total} bytes.`, 'Try again.');
    options.onProgress?.({
      downloaded,
      total: downloaded,
      bytesPerSecond: downloaded / Math.max((performance.now() - started) / 1000, 1e-3),
    });
  }
}

const leadsInside = (url: URL): OarlockError =>
  new OarlockError('forbidden_path', `The mirror redirects to ${url.hostname}, which is inside a private network.`);

/** Resolves names, and refuses those with any address that is not public: the checked address is the one connected to. */
function publicOnly(lookup: LookupFunction, url: URL): LookupFunction {
  return (hostname, options, done) => {
    lookup(hostname, options, (error, address, family) => {
      if (error) return done(error, address, family);
      const addresses = Array.isArray(address) ? address.map((entry) => entry.address) : [address];
      if (addresses.some(isPrivateAddress)) return done(leadsInside(url) as NodeJS.ErrnoException, '', 0);
      done(null, address, family);
    });
  };
}
