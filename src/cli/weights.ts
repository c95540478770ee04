/** `npm run weights -- add FILE | list | verify`: pretrained weights on this machine. */
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { findModelAnywhere, MODELS, type ModelInfo, pretrainedNames } from '../domain/params/index.js';
import { chooseBackbone } from '../domain/params/models.js';
import { defaultWeightsFolder, guessModel, Weights } from '../domain/weights.js';
import { isMain, processTerminal, runTool, size, type Terminal, UsageError } from './terminal.js';

const HELP = `Pretrained weights on this machine, found by name when a task asks for them.

Usage:
  npm run weights -- add FILE [--model MODEL] [--backbone BACKBONE] [--name NAME]
      Copies a .safetensors, .pth or .pdparams file to where tasks find it. The model is told from the file name
      when it can be (resnet50-0676ba61.pth); NAME is IMAGENET for classifiers unless given.
  npm run weights -- list      Shows what is there.
  npm run weights -- verify    Reads everything and compares it with the checksums noted when it was added.

Options:
  --weights-dir DIR     folder for weights (OARLOCK_WEIGHTS_DIR, else one in the user's cache)
  --workspace-dir DIR   also look into this workspace's pretrain folder (OARLOCK_WORKSPACE_DIR)`;

export async function main(
  argv: readonly string[],
  terminal: Terminal,
  env: NodeJS.ProcessEnv = process.env,
): Promise<number> {
  return runTool(terminal, async () => {
    const { values, positionals } = parseArgs({
      args: argv.map((word) => word.replace(/^--(weights|workspace)_dir/, '--$1-dir')),
      allowPositionals: true,
      options: {
        model: { type: 'string' },
        backbone: { type: 'string' },
        name: { type: 'string' },
        'weights-dir': { type: 'string' },
        'workspace-dir': { type: 'string' },
        help: { type: 'boolean', short: 'h' },
      },
    });
    const [command, ...rest] = positionals;
    if (values.help || command === undefined || command === 'help') {
      terminal.out(HELP);
      return command === undefined && !values.help ? 2 : 0;
    }
    const folder = path(values['weights-dir'] ?? defaultWeightsFolder(env));
    const workspace = values['workspace-dir'] ?? env.OARLOCK_WORKSPACE_DIR;
    const weights = new Weights({
      folder,
      pretrain: workspace === undefined ? undefined : join(path(workspace), 'pretrain'),
    });
    if (command === 'add') {
      const [file] = rest;
      if (file === undefined || rest.length > 1) throw new UsageError(`add takes one file.\n\n${HELP}`);
      return add(weights, path(file), values, terminal);
    }
    if (rest.length > 0) throw new UsageError(`${command} takes no file.\n\n${HELP}`);
    if (command === 'list') return list(weights, folder, terminal);
    if (command === 'verify') return verify(weights, folder, terminal);
    throw new UsageError(`There is no command "${command}".\n\n${HELP}`);
  });
}

const path = (given: string): string => resolve(given.startsWith('~/') ? join(homedir(), given.slice(2)) : given);

interface AddOptions {
  model?: string | undefined;
  backbone?: string | undefined;
  name?: string | undefined;
}

async function add(weights: Weights, file: string, options: AddOptions, terminal: Terminal): Promise<number> {
  const info = options.model === undefined ? guessModel(file) : findModelAnywhere(options.model);
  if (info === undefined) {
    const why =
      options.model === undefined
        ? `The name of ${file} does not tell its model; add --model MODEL.`
        : `There is no model "${options.model}".`;
    throw new UsageError(`${why}\nModels: ${MODELS.map(({ name }) => name).join(', ')}.`);
  }
  const backbone = backboneOf(info, options.backbone);
  const names = pretrainedNames(info, backbone);
  const name =
    options.name === undefined
      ? (names[0] as string)
      : names.find((known) => known.toLowerCase() === options.name?.toLowerCase());
  if (name === undefined)
    throw new UsageError(`${info.name} has no pretrained weights "${options.name}"; it has ${names.join(', ')}.`);
  const entry = await weights.add(file, info, backbone, name, (done, total) =>
    terminal.progress('copying', done, total),
  );
  terminal.progressEnd();
  terminal.out(`Added ${entry.key} (${entry.format}, ${size(entry.bytes)}): ${entry.path}`);
  terminal.out(
    `Tasks with ${info.name}${backbone === undefined ? '' : ` and ${backbone}`} find it as pretrain_weights "${name}".`,
  );
  return 0;
}

function backboneOf(info: ModelInfo, asked: string | undefined): string | undefined {
  const { backbone, warning } = chooseBackbone(info, asked);
  if (asked !== undefined && (warning !== undefined || backbone === undefined)) {
    throw new UsageError(
      info.backbones.length === 0
        ? `${info.name} has no choice of backbones; leave --backbone out.`
        : `${info.name} has no backbone "${asked}"; it has ${info.backbones.join(', ')}.`,
    );
  }
  return backbone;
}

const nothing = (folder: string): string => `No pretrained weights in ${folder}. Add some: npm run weights -- add FILE`;

async function list(weights: Weights, folder: string, terminal: Terminal): Promise<number> {
  const entries = await weights.list();
  if (entries.length === 0) terminal.out(nothing(folder));
  const width = Math.max(0, ...entries.map(({ key }) => key.length));
  for (const { key, format, bytes, path: file } of entries) {
    terminal.out(`${key.padEnd(width)}  ${format.padEnd(11)}  ${size(bytes).padStart(9)}  ${file}`);
  }
  return 0;
}

async function verify(weights: Weights, folder: string, terminal: Terminal): Promise<number> {
  const entries = await weights.list();
  if (entries.length === 0) terminal.out(nothing(folder));
  let bad = 0;
  for (const entry of entries) {
    let verdict: string;
    try {
      const result = await weights.verify(entry, (done, total) => terminal.progress(entry.key, done, total));
      verdict = { ok: 'ok', changed: 'CHANGED since it was added', unchecked: 'readable; no checksum was noted' }[
        result
      ];
      if (result === 'changed') bad++;
    } catch (error) {
      bad++;
      verdict = `DAMAGED: ${(error as Error).message}`;
    }
    terminal.progressEnd();
    terminal.out(`${entry.key}: ${verdict}`);
  }
  if (bad > 0) terminal.err(`${bad} of ${entries.length} cannot be trusted; add them again.`);
  return bad > 0 ? 1 : 0;
}

if (isMain(import.meta.url)) process.exitCode = await main(process.argv.slice(2), processTerminal());
