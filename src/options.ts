/** The options themselves: their names, their help, and how they are read. */

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

/** As users know it: `--workspace_dir`, `--allow-origin`. */
export const optionWord = (name: string): string =>
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

/** Texts as given; a switch is `true`. */
export type Raw = Record<string, string | true | string[]>;

/** The command line over the environment. What is wrong with their form goes to `problems`. */
export function readArguments(argv: readonly string[], env: NodeJS.ProcessEnv, problems: string[]): Raw {
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
