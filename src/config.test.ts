import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { type Config, ConfigError, helpText, isLoopback, readConfig } from './config.js';

let dir: string;
before(() => {
  dir = realpathSync(mkdtempSync(join(tmpdir(), 'oarlock-config-')));
  writeFileSync(join(dir, 'page.html'), '<html>');
  mkdirSync(join(dir, 'data'));
});
after(() => rmSync(dir, { recursive: true, force: true }));

const ws = () => ['--workspace_dir', join(dir, 'ws')];
const read = (argv: string[], env: NodeJS.ProcessEnv = {}): Config => {
  const config = readConfig([...ws(), ...argv], env);
  assert.ok(typeof config === 'object');
  return config;
};
const problems = (argv: string[], env: NodeJS.ProcessEnv = {}): string => {
  try {
    readConfig(argv, env);
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    return error.message;
  }
  assert.fail(`accepted ${argv.join(' ')}`);
};

test('wrong options are refused together, each with its remedy', () => {
  const text = problems([
    ...ws(),
    '--port',
    'http',
    '--resume',
    'maybe',
    '--allow-origin',
    'gui.lan',
    '--max-body',
    '0',
    '--log-level',
    'loud',
  ]);
  for (const part of [
    /--port must be a whole number from 0 to 65535, not "http"\./,
    /--resume must be auto or mark, not "maybe"\./,
    /--allow-origin must be scheme:\/\/host\[:port\] .*, not "gui\.lan"\./,
    /--max-body must be a whole number from 1 to 4096, not "0"\./,
    /--log-level must be trace, .*, not "loud"\./,
    /--help/,
  ]) {
    assert.match(text, part);
  }
  assert.match(problems(['--prot', '8080']), /--prot is not an option; did you mean --port\./);
  assert.match(problems(['serve']), /serve is not an option\./);
  assert.match(problems([...ws(), '--port']), /--port needs a value: --port N\./);
  assert.match(problems([...ws(), '--port', '--insecure']), /--port needs a value/);
  assert.match(problems([...ws(), '--port', '1', '--port', '2']), /more than once/);
  assert.match(problems([...ws(), '--insecure=yes']), /takes no value/);
  assert.match(problems([...ws()], { OARLOCK_INSECURE: 'maybe' }), /OARLOCK_INSECURE must be 1 or 0/);
  assert.match(problems([...ws()], { OARLOCK_PORT: '99999' }), /--port must be/);
});

test('a file as workspace, missing folders and pages are refused, and nothing is removed', async () => {
  const file = join(dir, 'page.html');
  assert.match(problems(['--workspace_dir', file]), /is a file; name a folder/);
  assert.match(problems(['--workspace_dir', join(file, 'x')]), /cannot be created/);
  assert.match(problems([...ws(), '--data_root', join(dir, 'none')]), /does not exist/);
  assert.match(problems([...ws(), '--data_root', file]), /is a file/);
  assert.match(problems([...ws(), '--gui', join(dir, 'none.html')]), /does not exist/);
  assert.match(problems([...ws(), '--gui', dir]), /is no file/);
  assert.equal((await import('node:fs')).readFileSync(file, 'utf8'), '<html>');
});

test('promise 6: beyond loopback only with a token or --insecure', () => {
  for (const host of ['0.0.0.0', '::', '192.168.1.5', 'gpu1', '[::]', '128.0.0.1']) {
    assert.match(
      problems([...ws(), '--host', host]),
      /lets other machines in; give a secret with --token SECRET, or --insecure/,
    );
    assert.equal(read(['--host', host, '--insecure']).insecure, true);
    assert.equal(read(['--host', host, '--token', 'a-long-enough-secret']).tokens.admin, 'a-long-enough-secret');
  }
  for (const host of ['127.0.0.1', 'localhost', '::1', '127.9.9.9'])
    assert.equal(read(['--host', host]).tokens.admin, null);
  assert.equal(read(['--host', '[::1]']).host, '::1');
  assert.ok(!isLoopback('127.0.0.1.evil.example') && !isLoopback('0.0.0.0'));
});

test('promise 6: tokens are checked and never echoed', () => {
  for (const token of ['short', 'with space inside', 'ümlaut-secret', '']) {
    const text = problems([...ws(), '--token', token]);
    assert.match(text, /--token must/);
    if (token !== '') assert.ok(!text.includes(token));
  }
  assert.match(problems([...ws(), '--read-token', 'only-a-read-token']), /need --token beside/);
  assert.match(problems([...ws(), '--token', 'same-secret-twice', '--run-token', 'same-secret-twice']), /must differ/);
  assert.match(read(['--token', 'eight-ch']).warnings.join(), /guessed/);
});

test('defaults: loopback, 8080, a workspace and data in the home folder', () => {
  const config = read([]);
  assert.equal(config.host, '127.0.0.1');
  assert.equal(config.port, 8080);
  assert.deepEqual(config.dataRoots, [homedir()]);
  assert.equal(config.maxBodyBytes, 64 * 2 ** 20);
  assert.equal(config.stateDir, join(dir, 'ws', '.oarlock'));
  assert.equal(config.resume, 'auto');
  assert.deepEqual(config.warnings, []);
});

test('the spellings of PaddleX, dashes or underscores, = or blank', () => {
  const theirs = readConfig(['-sr', '--pt', '9001', '--wd', join(dir, 'ws')], {}) as Config;
  assert.equal(theirs.port, 9001);
  assert.equal(theirs.workspace, join(dir, 'ws'));
  assert.equal(
    (readConfig(['--start_restful', '--port', '9002', '--workspace_dir', join(dir, 'ws')], {}) as Config).port,
    9002,
  );
  assert.equal((readConfig(['--workspace-dir', join(dir, 'ws'), '--port=9003'], {}) as Config).port, 9003);
  assert.deepEqual(read(['--data-root', join(dir, 'data'), '--data_root', dir]).dataRoots, [join(dir, 'data'), dir]);
});

test('the environment sets what the command line leaves open', () => {
  const env = {
    OARLOCK_PORT: '9100',
    OARLOCK_HOST: '0.0.0.0',
    OARLOCK_INSECURE: '1',
    OARLOCK_ALLOW_ORIGIN: 'http://a:1, null',
    OARLOCK_HELP: '1',
  };
  const config = read(['--port', '9200'], env);
  assert.equal(config.port, 9200);
  assert.equal(config.host, '0.0.0.0');
  assert.equal(config.insecure, true);
  assert.deepEqual(config.allowOrigins, ['http://a:1', 'null']);
  assert.deepEqual(read(['--allow-origin', 'http://b'], env).allowOrigins, ['http://b']);
});

test('characters that the PaddleX page cannot send are warned about', () => {
  const config = readConfig(['--workspace_dir', join(dir, 'a+b')], {}) as Config;
  assert.match(config.warnings.join(), /contains "\+"/);
  assert.deepEqual((readConfig(['--workspace_dir', join(dir, '工作 区')], {}) as Config).warnings, []);
});

test('help names every option', () => {
  assert.equal(readConfig(['--help'], {}), 'help');
  assert.equal(readConfig(['-v'], {}), 'version');
  for (const word of [
    '--host',
    '--port',
    '--workspace_dir',
    '--data_root',
    '--gui',
    '--allow-origin',
    '--token',
    '--insecure',
    'OARLOCK_',
  ]) {
    assert.ok(helpText().includes(word), word);
  }
});
