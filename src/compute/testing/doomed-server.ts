/** A server that is going to be killed: `node doomed-server.js WORKSPACE LAUNCHER ORPHAN_GRACE_MS JOB_JSON…`. Prints the host's pid once the jobs run. */
import { createCompute } from '../compute.js';
import { commandLauncher, localLauncher } from '../launcher.js';
import type { Fault } from './fault-addon.js';
import { quiet, SHORT, submit } from './harness.js';

const [workspace = '', launcher = '', grace = '', ...faults] = process.argv.slice(2);
const compute = createCompute(
  {
    ...SHORT,
    workspace,
    orphanGraceMs: Number(grace),
    launcher: launcher === 'stdio' ? commandLauncher(['env']) : localLauncher(),
  },
  quiet,
);
const jobs = faults.map((fault) => submit(compute, JSON.parse(fault) as Fault, { lane: 'interactive' }));
await Promise.all(jobs.map((job) => Promise.race([job.first('step'), job.first('heartbeat')])));
process.stdout.write(`${compute.stats().hosts[0]?.pid}\n`);
