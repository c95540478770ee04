/** What happened, for everybody who watches: the page, `GET /events`, metrics. Kept in memory only; the store has the truth. */

/** What each kind of event carries. Ids and numbers only: never names, paths or file content. */
export interface EventData {
  dataset: { id: string; action: Action; status?: number; percent?: number };
  project: { id: string; action: Action };
  task: { id: string; pid: string; action: Action; status?: number; queued?: boolean };
  /** A logged training step. */
  progress: {
    id: string;
    epoch: number;
    num_epochs: number;
    step: number;
    steps: number;
    eta: number | null;
    images_per_second: number;
    /** Of the newest logged step: all of it, and what it waited for images. */
    step_seconds: number;
    data_wait_seconds: number;
    /** Share of the running epoch's pictures that were found decoded in memory. */
    cache_hit_rate?: number | null;
    metrics: Record<string, number | null | undefined>;
  };
  /** A finished evaluation inside a training. */
  eval: { id: string; epoch: number; metrics: Record<string, number | null | undefined> };
  /** A pruned training has its smaller network. FLOPs are multiply-accumulates of one image. */
  pruned: {
    id: string;
    flops_before: number;
    flops_after: number;
    /** Share removed. */
    pruned_flops: number;
    parameters_before: number;
    parameters_after: number;
  };
  /** Evaluation, prediction, export or pruning analysis of a task; `status` in that job's own enumeration. */
  job: { id: string; job: 'evaluate' | 'predict' | 'export' | 'prune'; status: number | null; percent?: number };
  model: { id: string; action: Action };
  demo: { type: string; status: number | null; progress: number };
  system: { message: string };
}
export type Action = 'created' | 'changed' | 'deleted';
export type EventType = keyof EventData;

export interface DomainEvent<T extends EventType = EventType> {
  /** Rises by one with every event, also across restarts of the server. */
  readonly id: number;
  readonly type: T;
  readonly data: EventData[T];
}

export type Listener = (event: DomainEvent) => void;

/**
 * Publishes to listeners in order and remembers the newest `capacity` events for those who reconnect.
 * Listeners run inside `publish` and must be quick; one that throws is dropped, the others still hear.
 */
export class EventBus {
  readonly #ring: DomainEvent[] = [];
  readonly #capacity: number;
  readonly #listeners = new Set<Listener>();
  #next: number;

  /** Ids start at microseconds since 1970, so that those of a restarted server go on above the old ones. */
  constructor(capacity = 4096, firstId = Date.now() * 1000) {
    if (!Number.isInteger(capacity) || capacity < 1) throw new RangeError('capacity must be a positive whole number');
    this.#capacity = capacity;
    this.#next = firstId;
  }

  /** Id of the newest event, or one below the first id when nothing has happened yet. */
  get lastId(): number {
    return this.#next - 1;
  }

  get listeners(): number {
    return this.#listeners.size;
  }

  publish<T extends EventType>(type: T, data: EventData[T]): number {
    const event: DomainEvent = { id: this.#next++, type, data };
    this.#ring[event.id % this.#capacity] = event;
    for (const listener of this.#listeners) {
      try {
        listener(event);
      } catch {
        this.#listeners.delete(listener);
      }
    }
    return event.id;
  }

  /** Returns the function that ends the subscription. */
  subscribe(listener: Listener): () => void {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  /** Events after the one with id `since`, oldest first. `gap`: some of them are forgotten (or the id is not ours), so the reader must load everything anew. */
  replay(since: number): { events: DomainEvent[]; gap: boolean } {
    if (!Number.isSafeInteger(since) || since > this.lastId) return { events: [], gap: true };
    const events: DomainEvent[] = [];
    for (let id = Math.max(since + 1, this.#next - this.#capacity); id < this.#next; id++) {
      const event = this.#ring[id % this.#capacity];
      if (event?.id === id) events.push(event);
    }
    return { events, gap: events.length !== this.lastId - since };
  }
}
