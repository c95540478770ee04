/** How a training's end reads: the task's next state and the sentence that people see. */
import type { JobOutcome } from '../compute/jobs.gen.js';
import type { TrainingRecord } from './records.js';
import type { EventOf } from './states.js';

export interface TrainingEnd {
  event: EventOf<'task'>;
  message: string;
  change: Partial<TrainingRecord>;
}

/** `reason`: why it was stopped, when not by a client. */
export function endOfOutcome(
  outcome: Extract<JobOutcome, { type: 'train' }>,
  epochs: number,
  reason: string | undefined,
): TrainingEnd {
  const { completed_epochs: done, best_epoch: bestEpoch } = outcome;
  const best = bestEpoch === null ? 'there is no best model yet' : `the best model is that of epoch ${bestEpoch}`;
  if (outcome.stopped) {
    const message = `Stopped after ${done} of ${epochs} epochs; ${best}.`;
    return { event: 'stopped', message: reason === undefined ? message : `${reason} ${message}`, change: {} };
  }
  const message =
    done < epochs
      ? `Ended early after ${done} of ${epochs} epochs, because the results became no better; ${best}.`
      : `Trained ${done} epochs; ${best}.`;
  return { event: 'trained', message, change: { train_stage: 'Train Complete', train_error: null } };
}

export function endOfFailure(message: string, event: 'trainFailed' | 'weightsMissing' = 'trainFailed'): TrainingEnd {
  const change: Partial<TrainingRecord> = { train_error: message, train_stage: 'Train Error' };
  return { event, message, change: event === 'weightsMissing' ? { ...change, download_status: 'Failed' } : change };
}
