/** Starts the server: command line → log → services → listen; and ends it in order. */
import { readFileSync } from 'node:fs';
import { isIPv6 } from 'node:net';
import { setFlagsFromString } from 'node:v8';
import { type Config, ConfigError, helpText, readConfig } from './config.js';

// The nursery stays at its first megabyte instead of growing to 32: answers are short-lived and small, so collecting it more often
// costs nothing that can be measured, and the process keeps its memory for what it holds.
setFlagsFromString('--semi-space-growth-factor=1');

/** Orderly shutdown takes at most this long; a service manager kills after it. */
const SHUTDOWN_MS = 10_000;

const version = (
  JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string }
).version;

function configure(): Config {
  try {
    const config = readConfig(process.argv.slice(2));
    if (config !== 'help' && config !== 'version') return config;
    process.stdout.write(`${config === 'help' ? helpText() : version}\n`);
    process.exit(0);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    process.stderr.write(`${error.message}\n`);
    process.exit(2);
  }
}

const config = configure();

async function start(): Promise<void> {
  const [{ openLog }, { createServices }] = await Promise.all([import('./log.js'), import('./services.js')]);
  const { log, flush } = openLog(config.stateDir, config.logLevel);
  for (const warning of config.warnings) log.warn(warning);
  process.on('unhandledRejection', (error) => log.error({ err: error }, 'a background operation failed'));
  process.on('uncaughtException', (error) => {
    // The state of the process is unknown; the store is durable, so a fresh process is the safer one.
    log.fatal({ err: error }, 'unexpected error, ending');
    flush();
    process.exit(70);
  });

  // Opening the store waits for a child process; the edge is loaded meanwhile.
  const opening = createServices(
    {
      workspace: config.workspace,
      dataRoots: config.dataRoots,
      resume: config.resume,
      maxImageBytes: config.maxBodyBytes,
      ...(config.weightsDir === null ? {} : { weightsDirs: [config.weightsDir] }),
      weightsMirror: config.weightsMirror,
      demoDir: config.demoDir,
      demoMirror: config.demoMirror,
      threads: config.threads,
    },
    { log },
  );
  const [services, { createEdge }] = await Promise.all([opening, import('./http/server.js')]);
  const edge = createEdge({ services, config, version });
  const { server } = edge;

  let ending = false;
  const end = (signal: NodeJS.Signals) => {
    if (ending) return;
    ending = true;
    log.info({ signal }, 'ending');
    const hard = setTimeout(() => {
      log.error('ending took too long');
      flush();
      process.exit(1);
    }, SHUTDOWN_MS);
    hard.unref();
    // Requests end first, so that nothing new starts; then jobs checkpoint and the store closes.
    Promise.all([edge.close(1500), services.close(SHUTDOWN_MS - 2000)]).then(
      () => {
        log.info('ended');
        flush();
        process.exit(0);
      },
      (error) => {
        log.error({ err: error }, 'not everything ended in order');
        flush();
        process.exit(1);
      },
    );
  };
  process.on('SIGTERM', end);
  process.on('SIGINT', end);

  server.once('error', (error: NodeJS.ErrnoException) => {
    const remedy =
      error.code === 'EADDRINUSE'
        ? `port ${config.port} is in use; stop the other server or choose another with --port`
        : error.code === 'EACCES'
          ? `port ${config.port} needs more rights; choose one above 1023 with --port`
          : error.code === 'EADDRNOTAVAIL' || error.code === 'ENOTFOUND'
            ? `this machine has no address ${config.host}; give another with --host`
            : error.message;
    process.stderr.write(`Oarlock cannot listen: ${remedy}.\n`);
    log.fatal({ err: error }, 'cannot listen');
    services.close(1000).finally(() => {
      flush();
      process.exit(1);
    });
  });
  server.listen(config.port, config.host, () => {
    const address = server.address();
    const port = typeof address === 'object' && address !== null ? address.port : config.port;
    const host = isIPv6(config.host) ? `[${config.host}]` : config.host;
    process.stdout.write(`Oarlock is listening on http://${host}:${port}\n`);
    log.info({ host: config.host, port, workspace: config.workspace, version }, 'listening');
    // The first question of the page; answered once in the background.
    services.compute.devices().catch((error: unknown) => log.warn({ err: error }, 'devices could not be listed'));
  });
}

start().catch((error: Error) => {
  const shown = 'code' in error && typeof error.code === 'string' ? error.message : (error.stack ?? String(error));
  process.stderr.write(`Oarlock cannot start: ${shown}\n`);
  process.exit(1);
});
