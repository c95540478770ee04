/** The command line and its environment variables, checked. */
import { existsSync, mkdirSync, readFileSync, realpathSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { isAbsolute, join, resolve } from 'node:path';
import { z } from 'zod';

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

interface Option {
  readonly name: string;
  readonly aliases?: readonly string[];
  /** Word shown for the value; none = a switch. */
  readonly value?: string;
  readonly many?: boolean;
  readonly help: string;
}

const OPTIONS: readonly Option[] = [
  {
    name: 'host',
    value: 'ADDRESS',
    help: 'address to listen on (127.0.0.1); anything but loopback needs --token or --insecure',
  },
  { name: 'port', aliases: ['pt'], value: 'N', help: 'port to listen on (8080); 0 takes any free one' },
  {
    name: 'workspace_dir',
    aliases: ['wd', 'workspace'],
    value: 'DIR',
    help: 'folder for datasets, projects and models (~/oarlock_workspace)',
  },
  {
    name: 'data_root',
    value: 'DIR',
    many: true,
    help: 'folder that datasets may be read from and models exported to; repeatable (the home folder)',
  },
  { name: 'gui', value: 'FILE', help: 'PaddleX web page (html) to serve at /' },
  { name: 'token', value: 'SECRET', help: 'secret that allows everything' },
  { name: 'run_token', value: 'SECRET', help: 'secret that allows everything but stopping all jobs' },
  { name: 'read_token', value: 'SECRET', help: 'secret that allows only looking' },
  { name: 'insecure', help: 'listen beyond loopback without a token' },
  {
    name: 'allow_origin',
    value: 'ORIGIN',
    many: true,
    help: 'origin whose pages may call, e.g. http://gui.lan:8000, or null for pages opened from disk; repeatable',
  },
  {
    name: 'allow_host',
    value: 'NAME',
    many: true,
    help: 'further host name of this server, e.g. gpu1.example.org; repeatable',
  },
  {
    name: 'public_host',
    value: 'HOST[:PORT]',
    help: 'how clients reach this server, when behind a port mapping or proxy',
  },
  { name: 'path_prefix', value: 'PATH', help: 'path that a proxy in front removes, e.g. /oarlock' },
  { name: 'weights_dir', value: 'DIR', help: 'folder with pretrained weights (one in the home folder)' },
  { name: 'weights_mirror', value: 'URL', help: 'where missing pretrained weights may be fetched from (nowhere)' },
  { name: 'demo_dir', value: 'DIR', help: 'folder with demo archives' },
  { name: 'demo_mirror', value: 'URL', help: 'where demo archives may be fetched from (nowhere)' },
  {
    name: 'resume',
    value: 'auto|mark',
    help: 'trainings interrupted by a restart: continue them, or mark them stopped (auto)',
  },
  { name: 'threads', value: 'N', help: 'processor threads for computing (0 = all)' },
  { name: 'max_body', value: 'MB', help: 'largest request body (64)' },
  { name: 'log_level', value: 'LEVEL', help: 'trace, debug, info, warn, error or silent (info)' },
  { name: 'start_restful', aliases: ['sr'], help: 'accepted for scripts written for paddlex_restful; does nothing' },
  { name: 'help', aliases: ['h'], help: 'show this' },
  { name: 'version', aliases: ['v'], help: 'show the version' },
];

const byName = new Map<string, Option>();
for (const option of OPTIONS) for (const name of [option.name, ...(option.aliases ?? [])]) byName.set(name, option);

const optionWord = (name: string): string =>
  `--${name.replaceAll('_', '-').replace('workspace-dir', 'workspace_dir').replace('data-root', 'data_root')}`;

/** Text for `--help`. */
export function helpText(): string {
  const rows = OPTIONS.map((option) => {
    const word = optionWord(option.name) + (option.value === undefined ? '' : ` ${option.value}`);
    return `  ${word.padEnd(28)}${option.help}`;
  });
  return [
    'Oarlock: a drop-in server for the PaddleX RESTful API.',
    '',
    'Usage: npm start -- [options]',
    '',
    ...rows,
    '',
    'Every option can also be set by an environment variable, e.g. OARLOCK_PORT=9000; repeatable ones are separated by commas.',
    'The command line goes before the environment. - and _ mean the same in option names.',
  ].join('\n');
}

type Raw = Record<string, string | true | string[]>;

function readArguments(argv: readonly string[], env: NodeJS.ProcessEnv, problems: string[]): Raw {
  const raw: Raw = {};
  for (const option of OPTIONS) {
    const value = env[`OARLOCK_${option.name.toUpperCase()}`];
    if (value === undefined || value === '' || ['help', 'version', 'start_restful'].includes(option.name)) continue;
    if (option.many)
      raw[option.name] = value
        .split(',')
        .map((part) => part.trim())
        .filter(Boolean);
    else if (option.value !== undefined) raw[option.name] = value;
    else if (['1', 'true', 'yes', 'on'].includes(value.toLowerCase())) raw[option.name] = true;
    else if (!['0', 'false', 'no', 'off'].includes(value.toLowerCase())) {
      problems.push(`OARLOCK_${option.name.toUpperCase()} must be 1 or 0, not "${value}".`);
    }
  }
  const fresh = new Set<string>();
  for (let at = 0; at < argv.length; at++) {
    const word = argv[at] as string;
    const [, key, inline] = /^--?([A-Za-z][\w-]*)(?:=([\s\S]*))?$/.exec(word) ?? [];
    const option = key === undefined ? undefined : byName.get(key.replaceAll('-', '_'));
    if (option === undefined) {
      const near = key === undefined ? undefined : nearest(key.replaceAll('-', '_'));
      problems.push(`${word} is not an option${near === undefined ? '' : `; did you mean ${optionWord(near)}`}.`);
      continue;
    }
    if (option.value === undefined) {
      if (inline !== undefined) problems.push(`${optionWord(option.name)} takes no value.`);
      raw[option.name] = true;
      continue;
    }
    const value = inline ?? argv[++at];
    if (value === undefined || (inline === undefined && value.startsWith('--'))) {
      problems.push(`${optionWord(option.name)} needs a value: ${optionWord(option.name)} ${option.value}.`);
      at--;
      if (inline === undefined && value === undefined) at++;
      continue;
    }
    if (option.many) {
      const list = fresh.has(option.name) ? (raw[option.name] as string[]) : [];
      raw[option.name] = [...list, value];
    } else {
      if (fresh.has(option.name)) problems.push(`${optionWord(option.name)} was given more than once.`);
      raw[option.name] = value;
    }
    fresh.add(option.name);
  }
  return raw;
}

/** The option spelled most like `word`, if any is close. */
function nearest(word: string): string | undefined {
  let best: [number, string] | undefined;
  for (const { name } of OPTIONS) {
    const distance = edits(word, name);
    if (best === undefined || distance < best[0]) best = [distance, name];
  }
  return best !== undefined && best[0] <= 3 ? best[1] : undefined;
}

function edits(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const swap = (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(swap, (row[j] as number) + 1, (next[j - 1] as number) + 1));
    }
    row = next;
  }
  return row[b.length] as number;
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
const url = z
  .string()
  .refine((text) => /^https:$/.test(parseUrl(text)?.protocol ?? ''), 'must be an https URL');
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
