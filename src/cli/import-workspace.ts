/** `npm run import-workspace -- DIR`: takes over a workspace of PaddleX in place. */
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { computeConfig } from '../compute/config.js';
import { fromNative } from '../compute/light-pool.js';
import { loadAddon } from '../compute/native-addon.js';
import { OarlockError } from '../domain/errors.js';
import { type ImportReport, importWorkspace, isPaddlexWorkspace, type LightCalls } from '../domain/import/index.js';
import { openStore } from '../store/open.js';
import { isMain, processTerminal, runTool, type Terminal, UsageError } from './terminal.js';

const HELP = `Takes over a workspace of PaddleX: datasets, projects, tasks, models and their results appear in this server.
Nothing is copied or moved; the old files stay as they are, so that the old server can still open the folder.
Running it again adds only what is new. Opening the folder with "npm start -- --workspace_dir DIR" does the same.

Usage:
  npm run import-workspace -- DIR

DIR is the folder that was given to PaddleX as --workspace_dir. Stop the old server first.`;

export async function main(argv: readonly string[], terminal: Terminal): Promise<number> {
  return runTool(terminal, async () => {
    const { values, positionals } = parseArgs({
      args: [...argv],
      allowPositionals: true,
      options: { help: { type: 'boolean', short: 'h' } },
    });
    if (values.help) {
      terminal.out(HELP);
      return 0;
    }
    const [given] = positionals;
    if (given === undefined || positionals.length > 1) throw new UsageError(HELP);
    const folder = resolve(given.startsWith('~/') ? join(homedir(), given.slice(2)) : given);
    if (!(await isPaddlexWorkspace(folder))) {
      throw new OarlockError('not_found', `${folder} is no PaddleX workspace: it has no workspace.*.pb file.`, {
        hint: 'Name the folder that was given to PaddleX as --workspace_dir.',
      });
    }
    const light = await addonCalls(folder);
    const log = { debug() {}, info() {}, warn: said(terminal), error: said(terminal) };
    const opened = await openStore({ workspace: folder, log });
    try {
      for (const notice of opened.notices) terminal.err(notice);
      const report = await importWorkspace(folder, opened.store, {
        ...light,
        onProgress: (done, total, what) => terminal.progress(what, done, total),
      });
      terminal.progressEnd();
      tell(report, terminal);
      return 0;
    } finally {
      await opened.close();
    }
  });
}

const said =
  (terminal: Terminal) =>
  (...args: unknown[]) =>
    terminal.err(args.filter((arg) => typeof arg === 'string').join(' '));

/** The light addon in this thread: a tool may wait for it. */
async function addonCalls(workspace: string): Promise<LightCalls> {
  const { imagingAddon } = computeConfig({ workspace });
  const addon = (await loadAddon(imagingAddon).catch((cause: unknown) => {
    throw new OarlockError('not_ready', 'The native part of Oarlock is not built.', {
      hint: 'Run "npm run build" first.',
      cause,
    });
  })) as unknown as Record<string, ((...args: unknown[]) => unknown) | undefined>;
  return {
    async light<T>(fn: string, ...args: unknown[]) {
      try {
        return (await addon[fn]?.(...args)) as T;
      } catch (error) {
        throw fromNative(error);
      }
    },
  };
}

function tell(report: ImportReport, terminal: Terminal): void {
  const words = {
    dataset: 'dataset',
    project: 'project',
    task: 'task',
    pretrained: 'pretrained model',
    exported: 'exported model',
  };
  const parts = Object.entries(report.added)
    .filter(([, count]) => count > 0)
    .map(([kind, count]) => `${count} ${words[kind as keyof typeof words]}${count === 1 ? '' : 's'}`);
  const known = report.known > 0 ? ` ${report.known} were here already.` : '';
  terminal.out(
    parts.length > 0
      ? `Taken over from ${report.from}: ${parts.join(', ')}.${known}`
      : `Nothing new in ${report.from}.${known}`,
  );
  for (const warning of report.warnings) terminal.err(`Note: ${warning}`);
}

if (isMain(import.meta.url)) process.exitCode = await main(process.argv.slice(2), processTerminal());
