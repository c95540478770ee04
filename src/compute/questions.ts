/** Questions to a host that are answered by number. */

export class Questions<Answer> {
  readonly #open = new Map<number, (answer: Answer | undefined) => void>();
  #last = 0;
  #closed = false;

  /** Undefined when no answer comes in time. */
  ask(send: (seq: number) => void, withinMs: number): Promise<Answer | undefined> {
    if (this.#closed) return Promise.resolve(undefined);
    const seq = ++this.#last;
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.answer(seq, undefined), withinMs);
      this.#open.set(seq, (answer) => {
        clearTimeout(timer);
        resolve(answer);
      });
      send(seq);
    });
  }

  answer(seq: number, answer: Answer | undefined): void {
    const resolve = this.#open.get(seq);
    this.#open.delete(seq);
    resolve?.(answer);
  }

  /** Nobody will answer any more. */
  close(): void {
    this.#closed = true;
    for (const seq of [...this.#open.keys()]) this.answer(seq, undefined);
  }
}
