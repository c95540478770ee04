/** A real server on a free port and plain requests to it, for tests. */
import { type IncomingHttpHeaders, request, type Server } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { type AppOptions, createApp, type EdgeConfig } from '../app.js';

export const OPEN_CONFIG: EdgeConfig = {
  host: '127.0.0.1',
  allowHosts: [],
  allowOrigins: [],
  tokens: { admin: null, run: null, read: null },
  publicHost: null,
  pathPrefix: '',
  maxBodyBytes: 2 ** 20,
};

export interface Reply {
  status: number;
  headers: IncomingHttpHeaders;
  text: string;
  /** Parsed body; throws when it is no JSON. */
  // biome-ignore lint/suspicious/noExplicitAny: tests look at answers of any shape
  json: any;
}

export interface Ask {
  method?: string;
  headers?: Record<string, string | string[]>;
  /** An object is sent as JSON. */
  body?: unknown;
}

export class TestServer {
  readonly logged: unknown[] = [];

  private constructor(
    readonly server: Server,
    readonly port: number,
  ) {}

  static async start(
    options: Omit<AppOptions, 'config' | 'log'> & { config?: Partial<EdgeConfig> },
  ): Promise<TestServer> {
    const logged: unknown[] = [];
    const keep = (...args: unknown[]) => void logged.push(args);
    const log = { error: keep, warn: keep, info: keep, debug: keep } as AppOptions['log'];
    const server = createApp({ checkAnswers: true, ...options, config: { ...OPEN_CONFIG, ...options.config }, log });
    return TestServer.around(server, logged);
  }

  static async around(server: Server, logged: unknown[] = []): Promise<TestServer> {
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const test = new TestServer(server, (server.address() as AddressInfo).port);
    test.logged.push = (...args) => logged.push(...args);
    Object.defineProperty(test, 'logged', { value: logged });
    return test;
  }

  ask(path: string, { method = 'GET', headers = {}, body }: Ask = {}): Promise<Reply> {
    const bytes =
      body === undefined ? undefined : Buffer.isBuffer(body) || typeof body === 'string' ? body : JSON.stringify(body);
    const json: Record<string, string> =
      typeof body === 'object' && !Buffer.isBuffer(body) ? { 'content-type': 'application/json' } : {};
    return new Promise((resolve, reject) => {
      const sent = request(
        {
          port: this.port,
          host: '127.0.0.1',
          path,
          method,
          agent: false,
          headers: {
            ...json,
            ...(bytes === undefined || 'transfer-encoding' in headers
              ? {}
              : { 'content-length': String(Buffer.byteLength(bytes)) }),
            ...headers,
          },
        },
        (response) => {
          const chunks: Buffer[] = [];
          response.on('data', (chunk) => chunks.push(chunk));
          response.on('error', reject);
          response.on('end', () => {
            const text = Buffer.concat(chunks).toString();
            resolve({
              status: response.statusCode ?? 0,
              headers: response.headers,
              text,
              get json() {
                return JSON.parse(text);
              },
            });
          });
        },
      );
      sent.on('error', reject);
      sent.end(bytes);
    });
  }

  /** Sends bytes as they are and collects what comes until the server closes or `ms` have passed. */
  raw(text: string | Buffer, ms = 2000): Promise<string> {
    return new Promise((resolve) => {
      const socket = connect(this.port, '127.0.0.1');
      let answer = '';
      const done = () => {
        clearTimeout(timer);
        socket.destroy();
        resolve(answer);
      };
      const timer = setTimeout(done, ms);
      socket.on('data', (chunk) => {
        answer += chunk.toString();
      });
      socket.on('close', done);
      socket.on('error', done);
      socket.write(text);
    });
  }

  async stop(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }
}
