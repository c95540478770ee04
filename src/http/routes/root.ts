/** `/`: the PaddleX page, or our own. */
import { readFile, stat } from 'node:fs/promises';
import type { Page, PageContext } from '../app.js';
import type { Assets } from '../assets.js';
import { HttpError } from '../errors.js';
import type { Gatekeeper } from '../security.js';

/** The PaddleX page is one file of inline script that evaluates answers, and users can point it at other servers. */
const GUI_CSP =
  "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; connect-src *; base-uri 'none'; frame-ancestors 'self'";

/**
 * Replaces the first line that names the page's built-in server address by the page's own origin, keeping the line's
 * end. A page without such a line stays as it is.
 */
export function patchAddress(html: Buffer, pathPrefix: string): Buffer {
  const mark = html.indexOf('0.0.0.0:8080');
  if (mark === -1) return html;
  const start = html.lastIndexOf(0x0a, mark) + 1;
  const next = html.indexOf(0x0a, mark);
  let end = next === -1 ? html.length : next;
  if (html[end - 1] === 0x0d) end--;
  const prefix = pathPrefix === '' ? '' : ` + ${JSON.stringify(pathPrefix)}`;
  const line = Buffer.from(`var str_srv_url = window.location.origin${prefix};`);
  return Buffer.concat([html.subarray(0, start), line, html.subarray(end)]);
}

/** Serves the page file; a changed file shows at the next request. The file itself is never written. */
class GuiPage {
  #bytes: Buffer | undefined;
  #stamp = '';

  constructor(
    readonly file: string,
    readonly pathPrefix: string,
  ) {}

  async load(): Promise<Buffer> {
    const { mtimeMs, size } = await stat(this.file);
    const stamp = `${mtimeMs}/${size}`;
    if (this.#bytes === undefined || stamp !== this.#stamp) {
      this.#bytes = patchAddress(await readFile(this.file), this.pathPrefix);
      this.#stamp = stamp;
    }
    return this.#bytes;
  }
}

export interface RootOptions {
  gui: string | null;
  pathPrefix: string;
  assets: Assets;
}

export function rootPages({ gui, pathPrefix, assets }: RootOptions): Page[] {
  const page = gui === null ? undefined : new GuiPage(gui, pathPrefix);
  return [
    {
      path: '/',
      role: null,
      async handle(ctx, gate) {
        const { token } = ctx.query;
        if (typeof token === 'string' && token !== '') return handOver(ctx, gate, token, pathPrefix);
        if (!mayRead(ctx, gate)) {
          assets.send(ctx, 'signin.html');
          ctx.status = 401;
          return;
        }
        if (page === undefined) return assets.send(ctx, 'home.html');
        ctx.status = 200;
        ctx.set('cache-control', 'no-cache');
        ctx.set('content-security-policy', GUI_CSP);
        ctx.type = 'text/html; charset=utf-8';
        ctx.body = await page.load();
      },
    },
    // Our own page stays reachable beside a PaddleX page.
    { path: '/home', role: 'read', handle: (ctx) => assets.send(ctx, 'home.html') },
    { path: '/favicon.ico', role: null, handle: (ctx) => assets.send(ctx, 'icon.svg') },
  ];
}

/** `/?token=…` once in the browser: the token becomes a cookie that no script can read, and leaves the address line. */
function handOver(ctx: PageContext, gate: Gatekeeper, token: string, pathPrefix: string): void {
  if (gate.protected) ctx.append('set-cookie', gate.signIn(ctx.req, token));
  ctx.set('cache-control', 'no-store');
  ctx.set('referrer-policy', 'no-referrer');
  ctx.status = 302;
  ctx.set('location', `${pathPrefix}/`);
  ctx.body = '';
}

function mayRead(ctx: PageContext, gate: Gatekeeper): boolean {
  try {
    gate.authorize(ctx.req, gate.authenticate(ctx.req), 'read', false);
    return true;
  } catch (error) {
    if (error instanceof HttpError && (error.httpStatus === 401 || error.httpStatus === 403)) return false;
    throw error;
  }
}
