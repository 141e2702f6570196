// No file of the package or the page imports one that imports it back, directly or over others: whatever
// is in a ring can only be understood as a whole.
import { readdirSync, readFileSync } from 'node:fs';
import { posix } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const root = fileURLToPath(new URL('../../', import.meta.url));
const IMPORT = /(?:\bfrom|\bimport)\s*\(?\s*'(\.[^']+)'/g;

/** The files that each file imports, types included. */
function importsOf(roots: readonly string[]): Map<string, string[]> {
  const files = roots.flatMap((name) =>
    readdirSync(root + name, { recursive: true }).map((file) => posix.join(name, String(file))),
  );
  const sources = files.filter((file) => /\.tsx?$/.test(file));
  return new Map(
    sources.map((file) => {
      const found = [...readFileSync(root + file, 'utf8').matchAll(IMPORT)].flatMap(([, path = '']) => {
        const stem = posix.join(posix.dirname(file), path).replace(/\.js$/, '');
        return sources.filter((other) => other === `${stem}.ts` || other === `${stem}.tsx`);
      });
      return [file, found];
    }),
  );
}

/** The shortest way from a file back to itself, if there is one. */
function ringOf(start: string, imports: ReadonlyMap<string, string[]>): string[] | null {
  const seen = new Set<string>();
  const paths = [[start]];
  for (let path = paths.shift(); path; path = paths.shift()) {
    for (const next of imports.get(path.at(-1) as string) ?? []) {
      if (next === start) return [...path, start];
      if (!seen.has(next)) paths.push([...path, next]);
      seen.add(next);
    }
  }
  return null;
}

test('no files import each other', () => {
  const imports = importsOf(['src', 'page/src', 'tests']);
  expect(imports.get('src/client.ts')).toContain('src/driver.ts');
  const rings = [...imports.keys()].flatMap((file) => ringOf(file, imports)?.join(' -> ') ?? []);
  expect(rings).toEqual([]);
});
