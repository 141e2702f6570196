// The time of a client: Unix milliseconds that never go back.

/** Never runs backwards when the clock of the machine is set back, and keeps up after a sleep. */
export class Clock {
  #last = Date.now();
  #elapsed = performance.now();

  now(): number {
    const elapsed = performance.now();
    this.#last = Math.max(Date.now(), this.#last + Math.max(0, elapsed - this.#elapsed));
    this.#elapsed = elapsed;
    return Math.floor(this.#last);
  }
}
