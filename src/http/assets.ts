/** The built-in page's files: a fixed list, read once, nothing looked up by a client's path. */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Page, PageContext } from './app.js';

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
};

/** Own pages run only their own script files and load nothing from elsewhere. */
export const OWN_CSP =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

export interface Asset {
  readonly bytes: Buffer;
  readonly type: string;
  readonly etag: string;
}

export class Assets {
  readonly #files = new Map<string, Asset>();

  constructor(folder: string = fileURLToPath(new URL('../web/', import.meta.url))) {
    for (const name of readdirSync(folder)) {
      const type = TYPES[extname(name)];
      if (type === undefined) continue;
      const bytes = readFileSync(`${folder}/${name}`);
      const etag = `"${createHash('sha256').update(bytes).digest('base64url').slice(0, 22)}"`;
      this.#files.set(name, { bytes, type, etag });
    }
  }

  get(name: string): Asset {
    const asset = this.#files.get(name);
    if (asset === undefined) throw new Error(`the page file ${name} is missing from the installation`);
    return asset;
  }

  /** Answers with a page of ours. */
  send(ctx: PageContext, name: string): void {
    const { bytes, type, etag } = this.get(name);
    ctx.set('cache-control', 'no-cache');
    ctx.set('etag', etag);
    ctx.set('referrer-policy', 'no-referrer');
    if (name.endsWith('.html')) ctx.set('content-security-policy', OWN_CSP);
    if (ctx.req.headers['if-none-match'] === etag) {
      ctx.status = 304;
      return;
    }
    ctx.status = 200;
    ctx.type = type;
    ctx.body = bytes;
  }

  /** `/assets/NAME` for everything that is no html. */
  pages(): Page[] {
    return [...this.#files.keys()]
      .filter((name) => !name.endsWith('.html'))
      .map((name) => ({ path: `/assets/${name}`, role: null, handle: (ctx) => this.send(ctx, name) }));
  }
}
