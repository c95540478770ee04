/** First come, first served over named resources with a number of slots each. Knows nothing of jobs or processes. */

export interface SlotQueueOptions<T> {
  /** Slots of a resource, at least 1. */
  capacity(resource: string): number;
  /** Items that may wait; more are refused. */
  maxQueue: number;
  /** An item got one slot of each of its resources; `slots` are their numbers from 0, in the same order. */
  start(item: T, slots: readonly number[]): void;
  /** An item waits or its place changed. `position` counts from 1 among those waiting for one of its resources; `holders` are the items in its way that run. */
  waiting(item: T, position: number, holders: readonly T[]): void;
}

interface Entry<T> {
  item: T;
  resources: readonly string[];
}

interface Holder<T> extends Entry<T> {
  slots: readonly number[];
}

/**
 * An item starts when each of its resources has a free slot and nobody who came earlier waits for one of them,
 * so an item that needs two devices is not overtaken for ever by items that need one.
 */
export class SlotQueue<T> {
  #queue: Entry<T>[] = [];
  readonly #holders = new Map<T, Holder<T>>();

  constructor(private readonly options: SlotQueueOptions<T>) {}

  get queued(): number {
    return this.#queue.length;
  }

  get running(): number {
    return this.#holders.size;
  }

  /** Waiting items in their order. */
  items(): T[] {
    return this.#queue.map((entry) => entry.item);
  }

  /** Starts or enqueues the item; false when the queue is full. */
  add(item: T, resources: readonly string[]): boolean {
    const entry = { item, resources: [...new Set(resources)] };
    if (this.#queue.length >= this.options.maxQueue && !this.#startable(entry)) return false;
    this.#queue.push(entry);
    this.#pump();
    return true;
  }

  /** Takes a waiting item out; false when it does not wait. */
  remove(item: T): boolean {
    const before = this.#queue.length;
    this.#queue = this.#queue.filter((entry) => entry.item !== item);
    if (this.#queue.length === before) return false;
    this.#pump();
    return true;
  }

  /** A started item has ended. */
  release(item: T): void {
    if (this.#holders.delete(item)) this.#pump();
  }

  #startable(entry: Entry<T>): boolean {
    const claimed = this.#queue.some((other) => other.resources.some((name) => entry.resources.includes(name)));
    return !claimed && entry.resources.every((name) => this.#freeSlot(name) !== undefined);
  }

  #freeSlot(resource: string): number | undefined {
    const taken = new Set<number>();
    for (const holder of this.#holders.values()) {
      const index = holder.resources.indexOf(resource);
      if (index !== -1) taken.add(holder.slots[index] as number);
    }
    for (let slot = 0; slot < this.options.capacity(resource); slot++) if (!taken.has(slot)) return slot;
    return undefined;
  }

  #pump(): void {
    const claimed = new Set<string>();
    const starting: Holder<T>[] = [];
    const waiting: Entry<T>[] = [];
    for (const entry of this.#queue) {
      const slots = entry.resources.map((name) => (claimed.has(name) ? undefined : this.#freeSlot(name)));
      if (slots.includes(undefined)) {
        for (const name of entry.resources) claimed.add(name);
        waiting.push(entry);
      } else {
        const holder = { ...entry, slots: slots as number[] };
        this.#holders.set(entry.item, holder);
        starting.push(holder);
      }
    }
    this.#queue = waiting;
    for (const { item, slots } of starting) this.options.start(item, slots);
    // A callback may have changed the queue again; positions are told from what is true now.
    this.#tellPositions();
  }

  #tellPositions(): void {
    const queue = this.#queue;
    const shares = (a: Entry<T>, b: Entry<T>): boolean => a.resources.some((name) => b.resources.includes(name));
    queue.forEach((entry, index) => {
      const ahead = queue.slice(0, index).filter((other) => shares(other, entry)).length;
      const holders = [...this.#holders.values()].filter((holder) => shares(holder, entry)).map(({ item }) => item);
      this.options.waiting(entry.item, ahead + 1, holders);
    });
  }
}
