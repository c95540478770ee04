/** The command line and its environment variables, checked. */
import { existsSync, mkdirSync, readFileSync, realpathSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { isAbsolute, join, resolve } from 'node:path';
import { z } from 'zod';
import { optionWord, readArguments } from './options.js';

export { helpText } from './options.js';

export interface Config {
  /** Address to listen on. */
  host: string;
  /** 0 = any free one. */
  port: number;
  /** Absolute, exists. */
  workspace: string;
  /** `<workspace>/.oarlock`: database, server log and caches; out of reach for clients. */
  stateDir: string;
  /** Folders that datasets may come from and exports go to; absolute. */
  dataRoots: string[];
  /** PaddleX page to serve at `/`, absolute. */
  gui: string | null;
  /** Origins, beside the server's own host, whose pages may call. */
  allowOrigins: string[];
  /** Host names, beside the machine's own, that the server answers to. */
  allowHosts: string[];
  /** Secrets by role; all null = no authorisation (loopback, or `--insecure`). */
  tokens: { admin: string | null; run: string | null; read: string | null };
  insecure: boolean;
  /** Pretrained weights by file, or null: the folder that all workspaces of this user share. */
  weightsDir: string | null;
  /** Folder with demo archives, or null. */
  demoDir: string | null;
  /** Base URL for demo archives, or null: nothing is fetched. */
  demoMirror: string | null;
  /** Base URL for weights, or null: nothing is fetched. */
  weightsMirror: string | null;
  /** Trainings that a restart interrupted: go on by themselves, or be marked stopped. */
  resume: 'auto' | 'mark';
  logLevel: 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'silent';
  /** Largest request body, bytes. */
  maxBodyBytes: number;
  /** Path that a proxy in front removes before it passes requests on, e.g. `/oarlock`; '' = none. */
  pathPrefix: string;
  /** `host[:port]` that clients reach the server by, when that is not the address it listens on. */
  publicHost: string | null;
  /** Compute threads of a job; 0 = all cores. */
  threads: number;
  /** Things the user should know; printed at start. */
  warnings: string[];
}

/** What is wrong with the command line, ready to print. */
export class ConfigError extends Error {
  constructor(readonly problems: readonly string[]) {
    super(
      `Oarlock cannot start:\n${problems.map((problem) => `  - ${problem}`).join('\n')}\nRun with --help for all options.`,
    );
    this.name = 'ConfigError';
  }
}

const whole = (least: number, most: number) =>
  z
    .string()
    .regex(/^\d+$/, `must be a whole number from ${least} to ${most}`)
    .transform(Number)
    .refine((n) => n >= least && n <= most, `must be a whole number from ${least} to ${most}`);

const origin = z.string().refine((text) => text === 'null' || originOf(text) === text, {
  error: 'must be scheme://host[:port] without a path, such as http://gui.lan:8000, or null',
});
const url = z.string().refine((text) => /^https:$/.test(parseUrl(text)?.protocol ?? ''), 'must be an https URL');
const secret = z
  .string()
  .min(8, 'must have at least 8 characters')
  .max(512, 'must have at most 512 characters')
  .regex(/^[\x21-\x7e]+$/, 'must consist of printable ASCII characters without spaces');

const schema = z.object({
  host: z
    .string()
    .regex(/^[\w.:%[\]-]+$/, 'must be a host name or IP address')
    .default('127.0.0.1'),
  port: whole(0, 65_535).default(8080),
  workspace_dir: z.string().min(1, 'must not be empty').optional(),
  data_root: z.array(z.string().min(1, 'must not be empty')).optional(),
  gui: z.string().min(1, 'must not be empty').optional(),
  token: secret.optional(),
  run_token: secret.optional(),
  read_token: secret.optional(),
  insecure: z.literal(true).optional(),
  allow_origin: z.array(origin).default([]),
  allow_host: z.array(z.string().regex(/^[\w.-]+$/, 'must be a host name without scheme and port')).default([]),
  public_host: z
    .string()
    .regex(/^(\[[\da-fA-F:.]+\]|[\w.-]+)(:\d{1,5})?$/, 'must be HOST or HOST:PORT')
    .optional(),
  path_prefix: z
    .string()
    .regex(/^(\/[\w.~-]+)+\/?$/, 'must be a path such as /oarlock')
    .optional(),
  weights_dir: z.string().min(1, 'must not be empty').optional(),
  weights_mirror: url.optional(),
  demo_dir: z.string().min(1, 'must not be empty').optional(),
  demo_mirror: url.optional(),
  resume: z.enum(['auto', 'mark'], { error: 'must be auto or mark' }).default('auto'),
  threads: whole(0, 1024).default(0),
  max_body: whole(1, 4096).default(64),
  log_level: z
    .enum(['trace', 'debug', 'info', 'warn', 'error', 'silent'], {
      error: 'must be trace, debug, info, warn, error or silent',
    })
    .default('info'),
});

/** `'help'` or `'version'` when that was asked for. Creates the workspace folder. Throws `ConfigError` with every problem found. */
export function readConfig(argv: readonly string[], env: NodeJS.ProcessEnv = process.env): Config | 'help' | 'version' {
  const problems: string[] = [];
  const raw = readArguments(argv, env, problems);
  if (raw.help === true) return 'help';
  if (raw.version === true) return 'version';
  const parsed = schema.safeParse(raw);
  if (!parsed.success) {
    for (const issue of parsed.error.issues) {
      const name = String(issue.path[0]);
      const given = raw[name];
      const value = Array.isArray(given) ? given[Number(issue.path[1] ?? 0)] : given;
      const seen = name.endsWith('token') ? '' : `, not "${String(value)}"`;
      problems.push(`${optionWord(name)} ${issue.message}${seen}.`);
    }
    throw new ConfigError(problems);
  }
  const given = parsed.data;
  const warnings: string[] = [];
  const host = given.host.replace(/^\[(.*)\]$/, '$1');
  const tokens = { admin: given.token ?? null, run: given.run_token ?? null, read: given.read_token ?? null };
  const hasToken = Object.values(tokens).some((token) => token !== null);
  if (tokens.admin === null && hasToken) problems.push('--run-token and --read-token need --token beside them.');
  const secrets = Object.values(tokens).filter((token) => token !== null);
  if (new Set(secrets).size !== secrets.length) problems.push('--token, --run-token and --read-token must differ.');
  if (!isLoopback(host) && !hasToken && given.insecure !== true) {
    problems.push(
      `--host ${host} lets other machines in; give a secret with --token SECRET, or --insecure to let everybody do everything.`,
    );
  }
  if (given.insecure === true && hasToken) warnings.push('--insecure has no effect beside --token.');
  for (const secretText of secrets) {
    if (secretText.length < 16)
      warnings.push('A token of fewer than 16 characters can be guessed; use a long random one.');
  }

  const workspace = workspaceFolder(given.workspace_dir, problems, warnings);
  const dataRoots = (given.data_root ?? [homedir()]).map((path) => folder(path, '--data_root', problems));
  const gui = given.gui === undefined ? null : file(given.gui, '--gui', problems);
  const demoDir = given.demo_dir === undefined ? null : folder(given.demo_dir, '--demo-dir', problems);
  if (problems.length > 0) throw new ConfigError(problems);
  return {
    host,
    port: given.port,
    workspace,
    stateDir: join(workspace, '.oarlock'),
    dataRoots,
    gui,
    allowOrigins: given.allow_origin,
    allowHosts: given.allow_host.map((name) => name.toLowerCase()),
    tokens,
    insecure: given.insecure === true,
    weightsDir: given.weights_dir === undefined ? null : absolute(given.weights_dir),
    demoDir,
    demoMirror: given.demo_mirror ?? null,
    weightsMirror: given.weights_mirror ?? null,
    resume: given.resume,
    logLevel: given.log_level,
    maxBodyBytes: given.max_body * 2 ** 20,
    pathPrefix: given.path_prefix?.replace(/\/$/, '') ?? '',
    publicHost: given.public_host ?? null,
    threads: given.threads,
    warnings,
  };
}

/** Addresses that only this machine can reach. */
export const isLoopback = (host: string): boolean =>
  host === 'localhost' || host === '::1' || /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(host) || /^::ffff:127\./.test(host);

const absolute = (path: string): string => {
  const whole = path === '~' || path.startsWith('~/') ? join(homedir(), path.slice(1)) : path;
  return isAbsolute(whole) ? resolve(whole) : resolve(process.cwd(), whole);
};

function workspaceFolder(given: string | undefined, problems: string[], warnings: string[]): string {
  const path = absolute(given ?? '~/oarlock_workspace');
  try {
    if (existsSync(path) && !statSync(path).isDirectory()) {
      problems.push(`--workspace_dir ${path} is a file; name a folder, or a new one to create.`);
      return path;
    }
    mkdirSync(path, { recursive: true });
  } catch (error) {
    problems.push(
      `--workspace_dir ${path} cannot be created (${(error as NodeJS.ErrnoException).code}); choose a folder that you may write to.`,
    );
    return path;
  }
  const odd = /[+#&%]/.exec(path);
  if (odd !== null) {
    warnings.push(
      `The workspace path contains "${odd[0]}", which the PaddleX page cannot put into a request: pictures and logs will not show there. Use a folder without + # & %.`,
    );
  }
  return realpathSync.native(path);
}

function folder(given: string, option: string, problems: string[]): string {
  const path = absolute(given);
  if (!existsSync(path)) problems.push(`${option} ${path} does not exist; create it or name another folder.`);
  else if (!statSync(path).isDirectory()) problems.push(`${option} ${path} is a file; name a folder.`);
  return path;
}

function file(given: string, option: string, problems: string[]): string {
  const path = absolute(given);
  if (!existsSync(path)) problems.push(`${option} ${path} does not exist; name the page's html file.`);
  else if (!statSync(path).isFile()) problems.push(`${option} ${path} is no file; name the page's html file.`);
  else {
    try {
      readFileSync(path);
    } catch (error) {
      problems.push(
        `${option} ${path} cannot be read (${(error as NodeJS.ErrnoException).code}); check its permissions.`,
      );
    }
  }
  return path;
}

function parseUrl(text: string): URL | undefined {
  try {
    return new URL(text);
  } catch {
    return undefined;
  }
}

const originOf = (text: string): string | undefined => parseUrl(text)?.origin;
