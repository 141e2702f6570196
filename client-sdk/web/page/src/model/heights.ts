// How high each row of a long list is, where it begins, and which row is at a height. Pure.

/**
 * Heights of rows 0 to `count - 1`. Rows that were never measured count as the estimate. Everything
 * takes logarithmic time (a Fenwick tree over the differences to the estimate), so that a list of a
 * million rows scrolls like one of a hundred.
 */
export class Heights {
  private estimate: number;
  private size = 0;
  /** Measured heights; NaN: never measured. */
  private measured: Float32Array = new Float32Array(64).fill(Number.NaN);
  /** Sums of `measured - estimate` in Fenwick order, from 1. */
  private tree: Float64Array = new Float64Array(65);

  constructor(estimate: number) {
    this.estimate = estimate;
  }

  get count(): number {
    return this.size;
  }

  /** Height of all rows. */
  get total(): number {
    return this.top(this.size);
  }

  /** Makes the list this long. Rows that go are forgotten. */
  resize(count: number): void {
    for (let row = count; row < this.size; row++) this.set(row, Number.NaN);
    if (count > this.measured.length) this.grow(count);
    this.size = count;
  }

  /** Height of a row. */
  height(row: number): number {
    const height = this.measured[row] ?? Number.NaN;
    return Number.isNaN(height) ? this.estimate : height;
  }

  /** Whether the height of a row was measured. */
  known(row: number): boolean {
    return !Number.isNaN(this.measured[row] ?? Number.NaN);
  }

  /** The row has this height, or, if it is NaN, none that is known. Says whether that is news. */
  set(row: number, height: number): boolean {
    const before = this.height(row);
    this.measured[row] = height;
    const difference = this.height(row) - before;
    if (Math.abs(difference) < 0.01) return false;
    for (let node = row + 1; node < this.tree.length; node += node & -node) {
      this.tree[node] = (this.tree[node] as number) + difference;
    }
    return true;
  }

  /** Where a row begins: the height of all rows before it. */
  top(row: number): number {
    let sum = row * this.estimate;
    for (let node = row; node > 0; node -= node & -node) sum += this.tree[node] as number;
    return sum;
  }

  /** The row at a height; the first or last one beyond the ends. */
  at(height: number): number {
    let row = 0;
    let rest = height;
    for (let step = this.tree.length - 1; step > 0; step >>= 1) {
      const next = row + step;
      if (next >= this.tree.length) continue;
      const span = step * this.estimate + (this.tree[next] as number);
      if (span <= rest) {
        row = next;
        rest -= span;
      }
    }
    return Math.max(0, Math.min(row, this.size - 1));
  }

  /** The lengths of both arrays stay powers of two (and one more), which `at` counts on. */
  private grow(count: number): void {
    let length = this.measured.length;
    while (length < count) length *= 2;
    const measured = new Float32Array(length).fill(Number.NaN);
    measured.set(this.measured);
    this.measured = measured;
    this.tree = new Float64Array(length + 1);
    for (let node = 1; node <= length; node++) {
      const own = measured[node - 1] as number;
      this.tree[node] = (this.tree[node] as number) + (Number.isNaN(own) ? 0 : own - this.estimate);
      const parent = node + (node & -node);
      if (parent <= length) this.tree[parent] = (this.tree[parent] as number) + (this.tree[node] as number);
    }
  }
}
