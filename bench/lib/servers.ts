/** Starts a server on a workspace of its own and fills it through its HTTP API, the same way for every server. */
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { peer, root } from './peers.js';

export interface Server {
  readonly name: string;
  readonly port: number;
  readonly pid: number;
  readonly readySeconds: number;
  call(method: string, path: string, body?: Record<string, unknown>): Promise<Record<string, unknown>>;
  stop(): Promise<void>;
}

async function started(name: string, child: ChildProcess, port: number): Promise<Server> {
  const begin = performance.now();
  const call = async (
    method: string,
    path: string,
    body?: Record<string, unknown>,
  ): Promise<Record<string, unknown>> => {
    // Arguments of a GET go into the query: fetch refuses a body there.
    const query = method === 'GET' && body ? `?${new URLSearchParams(body as Record<string, string>)}` : '';
    const answer = await fetch(`http://127.0.0.1:${port}${path}${query}`, {
      method,
      ...(method === 'GET'
        ? {}
        : { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body ?? {}) }),
    });
    return (await answer.json()) as Record<string, unknown>;
  };
  for (;;) {
    if (child.exitCode !== null) throw new Error(`${name} ended with ${child.exitCode}`);
    try {
      await call('GET', '/project');
      break;
    } catch (error) {
      if (performance.now() - begin > 60_000) throw error;
      await sleep(20);
    }
  }
  const readySeconds = (performance.now() - begin) / 1000;
  const stop = async (): Promise<void> => {
    child.kill('SIGTERM');
    if (child.exitCode === null)
      await Promise.race([new Promise((resolve) => child.once('exit', resolve)), sleep(12_000)]);
    child.kill('SIGKILL');
  };
  return { name, port, pid: child.pid ?? 0, readySeconds, call, stop };
}

export function startOurs(workspace: string, data: string, port: number): Promise<Server> {
  const args = ['dist/src/main.js', '--port', `${port}`, '--workspace_dir', workspace, '--data_root', data];
  return started('Oarlock', spawn(process.execPath, args, { cwd: root, stdio: ['ignore', 'ignore', 'inherit'] }), port);
}

export function startReference(workspace: string, port: number): Promise<Server> {
  const script = join(root, 'bench/peers/paddlex_server.py');
  return started('PaddleX', spawn(peer('paddlex'), [script, `${port}`, workspace], { stdio: 'ignore' }), port);
}

export interface Filled {
  did: string;
  pid: string;
  tid: string;
  image: string;
}

/** One imported and split dataset, `records` more datasets and projects, and 2 × `records` tasks. */
export async function fill(server: Server, images: string, records: number): Promise<Filled> {
  const must = async (
    method: string,
    path: string,
    body: Record<string, unknown>,
  ): Promise<Record<string, unknown>> => {
    const answer = await server.call(method, path, body);
    if (answer.status !== 1) throw new Error(`${server.name} ${method} ${path}: ${JSON.stringify(answer)}`);
    return answer;
  };
  const did = String((await must('POST', '/dataset', { name: 'set', desc: '', dataset_type: 'classification' })).did);
  await must('PUT', '/dataset', { did, path: images });
  for (let state: unknown = 0; state !== 4 && state !== 6; ) {
    await sleep(100);
    const answer = await must('GET', '/dataset', { did });
    state = answer.dataset_status;
    if (state === 2 || state === 5) throw new Error(`${server.name}: import failed: ${JSON.stringify(answer.message)}`);
  }
  await must('PUT', '/dataset/split', { did, val_split: 0.2, test_split: 0.1 });
  let pid = '';
  for (let i = 0; i < records; i += 1) {
    await must('POST', '/dataset', { name: `empty ${i}`, desc: '', dataset_type: 'classification' });
    pid = String(
      (await must('POST', '/project', { name: `project ${i}`, desc: '', project_type: 'classification' })).pid,
    );
    await must('PUT', '/workspace', { struct: 'project', id: pid, attr_dict: { did } });
  }
  const train = JSON.stringify((await must('GET', '/project/task/params', { pid })).train);
  let tid = '';
  for (let i = 0; i < 2 * records; i += 1) tid = String((await must('POST', '/project/task', { pid, train })).tid);
  const details = (await must('GET', '/dataset/details', { did })).details as { train_files: string[] };
  const attr = (await must('GET', '/dataset', { did })).attr as { path: string };
  return { did, pid, tid, image: `${attr.path}/${details.train_files[0]}` };
}

/** Resident memory of one process in MiB. */
export const residentMib = (pid: number): number =>
  Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) / 1024;
