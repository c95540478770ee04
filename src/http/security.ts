/** Who may call: host names, origins, tokens, roles. */
import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { isIP } from 'node:net';
import { hostname } from 'node:os';
import { type Config, isLoopback } from '../config.js';
import { HttpError } from './errors.js';
import type { Role } from './route.js';

const RANK: Readonly<Record<Role, number>> = { read: 1, run: 2, admin: 3 };

export type Access = { role: Role; via: 'open' | 'bearer' | 'cookie' };

/** One host name with its port as sent; `undefined` when it is not plainly `name[:port]`. */
export function parseAuthority(text: string | undefined): { name: string; port: string } | undefined {
  if (text === undefined || text.length > 260) return undefined;
  const found = /^(?:\[([\da-fA-F:.]{2,45})\]|([A-Za-z\d_](?:[\w.-]{0,252}[A-Za-z\d_.])?))(?::(\d{1,5}))?$/.exec(text);
  if (found === null) return undefined;
  const name = (found[1] ?? found[2] ?? '').toLowerCase().replace(/\.$/, '');
  return { name, port: found[3] ?? '' };
}

/** Hash compare: equal time for any input of any length. */
const sameSecret = (a: Buffer, b: Buffer): boolean => timingSafeEqual(a, b);
const digest = (text: string): Buffer => createHash('sha256').update(text).digest();

interface Secret {
  readonly role: Role;
  readonly hash: Buffer;
  readonly cookie: string;
  readonly cookieHash: Buffer;
}

export class Gatekeeper {
  readonly #names: ReadonlySet<string>;
  readonly #origins: ReadonlySet<string>;
  readonly #secrets: readonly Secret[];
  readonly #publicHost: string | null;
  readonly #failures = new Map<string, { count: number; until: number }>();
  /** Cookies do not know ports: two servers of one machine must not overwrite each other's. */
  cookieName = 'oarlock';

  constructor(config: Pick<Config, 'host' | 'allowHosts' | 'allowOrigins' | 'tokens' | 'publicHost'>) {
    const own = hostname().toLowerCase();
    const names = ['localhost', own, `${own}.local`, config.host.toLowerCase(), ...config.allowHosts];
    const published = parseAuthority(config.publicHost ?? undefined);
    if (published !== undefined) names.push(published.name);
    this.#names = new Set(names);
    this.#origins = new Set(config.allowOrigins);
    this.#publicHost = config.publicHost;
    this.#secrets = (['admin', 'run', 'read'] as const).flatMap((role) => {
      const token = config.tokens[role];
      if (token === null) return [];
      const cookie = createHmac('sha256', token).update('oarlock session').digest('base64url');
      return [{ role, hash: digest(token), cookie, cookieHash: digest(cookie) }];
    });
  }

  get protected(): boolean {
    return this.#secrets.length > 0;
  }

  /**
   * Refuses requests that reached us under a foreign name: a page of attacker.example whose name was re-pointed to this
   * machine (DNS rebinding) still sends that name. Addresses cannot be re-pointed and are let through.
   */
  checkHost(request: IncomingMessage): { name: string; port: string } {
    const raw = request.headers.host;
    const host = parseAuthority(raw);
    if (host === undefined) {
      throw new HttpError(400, 'invalid_argument', 'The Host header is missing or malformed.', {
        context: { field: 'Host' },
      });
    }
    if (isIP(host.name) === 0 && !this.#names.has(host.name) && !host.name.endsWith('.localhost')) {
      throw new HttpError(403, 'unauthorized', 'This server does not answer to that host name.', {
        context: { field: 'Host' },
        hint: 'Start it with --allow-host NAME if the name is right.',
      });
    }
    return host;
  }

  /** Where this connection reached us: the configured public host, our own checked name, or the socket's address. */
  authority(request: IncomingMessage, host: { name: string; port: string }): string {
    if (this.#publicHost !== null) return this.#publicHost;
    const { localAddress = '127.0.0.1', localPort = 0 } = request.socket;
    const address = localAddress.replace(/^::ffff:(?=\d+\.)/, '');
    const known = this.#names.has(host.name) || host.name === address || (isLoopback(host.name) && isLoopback(address));
    const name = known ? host.name : address;
    const port = known ? host.port || '80' : String(localPort);
    return `${name.includes(':') ? `[${name}]` : name}:${port}`;
  }

  /** The origin to echo in CORS headers; `undefined` when the request has none or it is our own; throws when it is foreign. */
  checkOrigin(request: IncomingMessage, host: { name: string; port: string }, navigation: boolean): string | undefined {
    const origin = request.headers.origin;
    const site = request.headers['sec-fetch-site'];
    if (origin !== undefined) {
      if (this.#origins.has(origin)) return origin;
      const parsed = origin === 'null' ? undefined : originHost(origin);
      if (parsed === host.name || (parsed !== undefined && isLoopback(parsed) && isLoopback(host.name))) return origin;
      throw foreign(origin === 'null' ? 'null' : 'another site');
    }
    // Browsers name no origin on plain GETs; they tell how the page and we relate.
    if (site === 'cross-site' && !navigation) throw foreign('another site');
    return undefined;
  }

  /** The caller's role. Throws 401 for none or a wrong secret, 429 after many wrong ones. */
  authenticate(request: IncomingMessage): Access {
    if (this.#secrets.length === 0) return { role: 'admin', via: 'open' };
    const header = request.headers.authorization;
    const remote = request.socket.remoteAddress ?? '';
    if (header !== undefined) {
      this.#throttle(remote);
      const found = /^Bearer +([\x21-\x7e]+)$/i.exec(header);
      const role = found === null ? undefined : this.roleOf(found[1] as string);
      if (role !== undefined) return { role, via: 'bearer' };
      this.#failed(remote);
      throw unauthorized('The token is not valid.');
    }
    const cookie = this.#cookie(request.headers.cookie);
    if (cookie !== undefined) {
      const hash = digest(cookie);
      for (const secret of this.#secrets)
        if (sameSecret(hash, secret.cookieHash)) return { role: secret.role, via: 'cookie' };
    }
    throw unauthorized('This server needs a token.');
  }

  /** Role of a token, if it is one of ours. Looks at all of them in any case. */
  roleOf(token: string): Role | undefined {
    const hash = digest(token);
    let role: Role | undefined;
    for (const secret of this.#secrets) if (sameSecret(hash, secret.hash)) role = secret.role;
    return role;
  }

  /** Set-Cookie value for a token handed over by a link. Throws 401, 429. */
  signIn(request: IncomingMessage, token: string): string {
    const remote = request.socket.remoteAddress ?? '';
    this.#throttle(remote);
    const role = this.roleOf(token);
    const secret = this.#secrets.find((one) => one.role === role);
    if (role === undefined || secret === undefined) {
      this.#failed(remote);
      throw unauthorized('The token is not valid.');
    }
    return `${this.cookieName}=${secret.cookie}; Path=/; HttpOnly; SameSite=Strict; Max-Age=31536000`;
  }

  /** Throws 403 when the caller's role is too low. A cookie alone changes something only for our own pages. */
  authorize(request: IncomingMessage, access: Access, needed: Role, changes: boolean): void {
    if (RANK[access.role] < RANK[needed]) {
      throw new HttpError(
        403,
        'unauthorized',
        `This needs the role ${needed}; the token given has the role ${access.role}.`,
        {
          context: { role: access.role, needed },
        },
      );
    }
    if (access.via !== 'cookie') return;
    const { origin, host } = request.headers;
    const site = request.headers['sec-fetch-site'];
    if (origin !== undefined) {
      if (!this.#origins.has(origin) && !sameOrigin(origin, host ?? '')) throw foreign('another origin');
    } else if (site === undefined ? changes : site !== 'same-origin' && (changes || site !== 'none')) {
      throw foreign('an unknown origin');
    }
  }

  #cookie(header: string | undefined): string | undefined {
    if (header === undefined) return undefined;
    const prefix = `${this.cookieName}=`;
    for (const part of header.split(';')) {
      const text = part.trim();
      if (text.startsWith(prefix)) return text.slice(prefix.length, prefix.length + 128);
    }
    return undefined;
  }

  #throttle(remote: string): void {
    const seen = this.#failures.get(remote);
    if (seen === undefined || seen.until < Date.now()) return;
    if (seen.count >= 20) {
      throw new HttpError(
        429,
        'resource_exhausted',
        'Too many wrong tokens from this address; wait a minute.',
        { retryable: true },
        { 'retry-after': '60' },
      );
    }
  }

  #failed(remote: string): void {
    const now = Date.now();
    if (this.#failures.size > 10_000) this.#failures.clear();
    const seen = this.#failures.get(remote);
    if (seen === undefined || seen.until < now) this.#failures.set(remote, { count: 1, until: now + 60_000 });
    else seen.count++;
  }
}

const originHost = (origin: string): string | undefined => {
  const found = /^https?:\/\/(.+)$/.exec(origin);
  return found === null ? undefined : parseAuthority(found[1])?.name;
};

/** Same name and port; a proxy in front may add TLS. */
const sameOrigin = (origin: string, host: string): boolean => {
  const found = /^(https?):\/\/(.+)$/.exec(origin);
  if (found === null) return false;
  const plain = (text: string) => text.toLowerCase().replace(/:(80|443)$/, '');
  return plain(found[2] as string) === plain(host);
};

const foreign = (who: string): HttpError =>
  new HttpError(403, 'unauthorized', `Requests from pages of ${who} are not allowed.`, {
    context: { field: 'Origin' },
    hint: 'Start the server with --allow-origin ORIGIN to let the pages of that origin in.',
  });

const unauthorized = (message: string): HttpError =>
  new HttpError(
    401,
    'unauthorized',
    message,
    { hint: 'Send the header "Authorization: Bearer TOKEN", or open /?token=TOKEN once in the browser.' },
    { 'www-authenticate': 'Bearer realm="oarlock"' },
  );
