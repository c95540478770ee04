/** One route = method + path + schemas + handler. The same schemas validate, type the handler and make the OpenAPI page. */
import type { z } from 'zod';

/** `read` sees, `run` starts and changes, `admin` stops the server's jobs. Each includes the one before. */
export type Role = 'read' | 'run' | 'admin';

export interface RouteContext {
  /** The names the client really sent (some answers depend on presence, not value). */
  readonly given: ReadonlySet<string>;
  /** Lower-case request headers. */
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  /** `host:port` this connection reached, from the socket or the configuration, never from the Host header. */
  readonly authority: string;
  /** Aborted when the client goes away. */
  readonly signal: AbortSignal;
}

/** Bytes instead of the JSON envelope. */
export class RawAnswer {
  constructor(
    readonly body: Buffer | string | NodeJS.ReadableStream,
    readonly contentType: string,
    readonly status = 200,
    readonly headers: Readonly<Record<string, string>> = {},
  ) {}
}

export interface Route {
  readonly method: 'get' | 'post' | 'put' | 'delete';
  readonly path: string;
  /** One line for the API page. */
  readonly summary: string;
  readonly tag: string;
  readonly role: Role;
  readonly input: z.ZodObject;
  /** The answer without `status`, which the framework adds (1, or -1 from an error). */
  readonly output: z.ZodType;
  /** Content types it may answer beside the JSON envelope, for the API page. */
  readonly produces?: readonly string[];
  handle(input: never, ctx: RouteContext): Promise<unknown>;
}

/** Types the handler by its schemas. A handler returns the answer's own fields; to send `status: -1` *with* fields it returns them with `status: -1`. */
export function defineRoute<I extends z.ZodObject, O extends z.ZodType>(route: {
  method: Route['method'];
  path: string;
  summary: string;
  tag: string;
  /** Default: `read` for GET, else `run`. */
  role?: Role;
  input: I;
  output: O;
  produces?: readonly string[];
  handle(input: z.output<I>, ctx: RouteContext): Promise<z.input<O> | RawAnswer | (z.input<O> & { status: -1 })>;
}): Route {
  return { role: route.method === 'get' ? 'read' : 'run', ...route } as unknown as Route;
}
