import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type HostEnd, outcomeOfEnd } from './host-end.js';

const end = (fields: Partial<HostEnd>): HostEnd => ({ code: null, signal: null, stderr: [], ...fields });
const memory = { rssMb: 900, peakMb: 1_900, limitMb: 2_048, oomKilled: true };

const cases: [string, HostEnd, string, string, RegExp][] = [
  ['crash', end({ signal: 'SIGSEGV' }), 'internal', 'signal', /SIGSEGV \(invalid memory access\)/],
  ['killed by someone', end({ signal: 'SIGKILL' }), 'internal', 'signal', /SIGKILL \(killed from outside\)/],
  ['out of memory', end({ signal: 'SIGKILL', memory }), 'resource_exhausted', 'out_of_memory', /1\.9 GiB of 2\.0 GiB/],
  ['exit code', end({ code: 3 }), 'internal', 'exit', /exit code 3/],
  ['device fault', end({ code: 86 }), 'device_fault', 'device_fault', /device failed/],
  [
    'device fault with reason',
    end({ signal: 'SIGKILL', announced: { reason: 'device_fault', message: 'Xid 79' } }),
    'device_fault',
    'device_fault',
    /Xid 79/,
  ],
  [
    'own stall',
    end({ signal: 'SIGKILL', cause: { kind: 'stall', job: 'a', seconds: 120 } }),
    'internal',
    'stalled',
    /120 s/,
  ],
  ["another's stall", end({ cause: { kind: 'stall', job: 'b', seconds: 120 } }), 'internal', 'stalled', /job b/],
  [
    'own stop',
    end({ cause: { kind: 'stop', job: 'a', seconds: 60 } }),
    'cancelled',
    'killed',
    /did not stop within 60 s/,
  ],
  ['shutdown', end({ cause: { kind: 'shutdown' } }), 'cancelled', 'shutdown', /server was stopped/],
  ['no start', end({ startError: 'spawn ENOENT' }), 'internal', 'start_failed', /did not start: spawn ENOENT/],
];

for (const [name, given, code, reason, message] of cases) {
  test(`the reason of an end is told: ${name}`, () => {
    const outcome = outcomeOfEnd(given, 'a');
    assert.equal(outcome.type, 'failed');
    if (outcome.type !== 'failed') return;
    assert.equal(outcome.code, code);
    assert.equal(outcome.context.reason, reason);
    assert.match(outcome.message, message);
  });
}

test('a kill that the kernel counted as a memory victim is out of memory even while stopping', () => {
  const outcome = outcomeOfEnd(end({ signal: 'SIGKILL', memory, cause: { kind: 'stop', job: 'a', seconds: 1 } }), 'a');
  assert.ok(outcome.type === 'failed' && outcome.context.reason === 'out_of_memory');
  assert.deepEqual([outcome.context.peak_mb, outcome.context.limit_mb], [1_900, 2_048]);
});
