// Writes src/generated: the frames, codes and limits of the protocol in TypeScript, from
// protocol/schema.json (which the Rust types make) and with the words of docs/protocol.md.
// With --check it only says whether the files are what it would write.
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = new URL('../../../', import.meta.url);
const out = new URL('../src/generated/', import.meta.url);

/** Types that the codec has by hand: their text form in TypeScript, and the codec that reads it. */
const SCALARS = {
  String: ['string', 'str'],
  Token: ['string', 'str'],
  Data: ['unknown', 'json'],
  Code: ['number', 'u16'],
  UserId: ['UserId', 'userId'],
  DeviceId: ['DeviceId', 'deviceId'],
  ConversationId: ['ConversationId', 'conversationId'],
  TempId: ['TempId', 'uuid'],
  EntryId: ['EntryId', 'uuid'],
  StoreId: ['StoreId', 'uuid'],
  Target: ['Target', 'target'],
  bool: ['boolean', 'bool'],
  u16: ['number', 'u16'],
  u32: ['number', 'u32'],
  u64: ['number', 'u64'],
};
const IDS = ['UserId', 'DeviceId', 'ConversationId', 'TempId', 'EntryId', 'StoreId', 'Target'];

const camel = (name) => name.replace(/_(\w)/g, (_, letter) => letter.toUpperCase());
/** `Error` is taken in JavaScript. */
const typeName = (body) => (body.name === 'Error' ? 'ErrorFrame' : body.name);
const lower = (name) => name[0].toLowerCase() + name.slice(1);

/** The words of the page: by heading, the sentence below it and those of its rows. */
export function words(page) {
  const found = {};
  let rows;
  for (const line of page.split('\n')) {
    const heading = /^#{3,4} (?:\d+ )?`?(\w+)`?/.exec(line);
    const row = /^\| (?:\d+ \| )?`(\w+)` \|(?:.*\|)? ?(.*?) \|$/.exec(line);
    if (heading) {
      rows = found[heading[1]] = { text: '', rows: {} };
    } else if (row && rows) {
      rows.rows[row[1]] ??= row[2];
    } else if (rows && line && !/^[|`<[]/.test(line) && !rows.text && Object.keys(rows.rows).length === 0) {
      rows.text = line;
    }
  }
  return found;
}

class Generator {
  constructor(page, bodies) {
    this.words = words(page);
    this.bodies = bodies;
    this.types = [];
    this.codecs = [];
    this.seen = new Set();
  }

  /** Type and codec of a schema type; structures and enumerations are written out on the way. */
  of(type) {
    const scalar = SCALARS[type.name];
    if (scalar) return scalar;
    const [kind, inner] = Object.entries(type.ty)[0];
    if (kind === 'Option') {
      const [name, codec] = this.of(inner);
      return [name === 'unknown' ? name : `${name} | null`, `option(${codec})`];
    }
    if (kind === 'Seq') {
      const [name, codec] = this.of(inner);
      return [`${name}[]`, `list(${codec})`];
    }
    if (!this.seen.has(type.name)) {
      this.seen.add(type.name);
      if (type.name === 'EntryBody') this.growing(type.name, this.bodies);
      else if (kind === 'Struct') this.struct(type.name, inner, this.words[type.name]);
      else if (kind === 'Enum') this.enumeration(type.name, inner);
      else throw new Error(`${type.name}: the generator does not know ${kind}`);
    }
    return [type.name, lower(type.name)];
  }

  fields(list, said, indent) {
    return list.map(({ name, ty }) => {
      const [type, codec] = this.of(ty);
      const comment = said?.rows[name] ? `${indent}/** ${this.say(said.rows[name])} */\n` : '';
      return { type: `${comment}${indent}${camel(name)}: ${type};\n`, codec: `${camel(name)}: ${codec}` };
    });
  }

  /** Names of fields and frames as they are called here; links of the page lead nowhere here. */
  say(text) {
    const plain = text
      .replace(/\[([^\]]*)\]\(#[^)]*\)/g, '$1')
      .replaceAll('*/', '* /')
      .replaceAll('*', '');
    const said = plain.replace(/`([a-z_]+)`/g, (_, name) => `\`${camel(name)}\``);
    return said.charAt(0).toUpperCase() + said.slice(1) + (/[.!?]$/.test(said) ? '' : '.');
  }

  struct(name, list, said) {
    const fields = this.fields(list, said, '  ');
    const comment = said?.text ? `/** ${this.say(said.text)} */\n` : '';
    this.types.push(`${comment}export interface ${name} {\n${fields.map((f) => f.type).join('')}}\n`);
    const body = fields.map((f) => f.codec).join(', ');
    this.codecs.push(`const ${lower(name)} = struct<${name}>({ ${body} });\n`);
  }

  enumeration(name, variants) {
    const said = this.words[name];
    const comment = said?.text && !said.text.startsWith('In binary') ? `/** ${this.say(said.text)} */\n` : '';
    if (variants.some((variant) => variant.ty !== 'UnitVariant')) {
      throw new Error(`${name}: the generator knows variants with fields only where they have numbers`);
    }
    const snake = (variant) => variant.replace(/(.)([A-Z])/g, '$1_$2').toLowerCase();
    const names = variants.map((variant) => `'${camel(snake(variant.name))}'`);
    this.types.push(`${comment}export type ${name} = ${names.join(' | ')};\n`);
    this.codecs.push(`const ${lower(name)} = unit<${name}>([${names.join(', ')}]);\n`);
  }

  /** An enumeration whose variants have numbers and lengths, so that later ones can be kept unread. */
  growing(name, variants) {
    const said = this.words[name];
    const row = (kind, type, words = said?.rows[kind]) => {
      const comment = words ? `  /** ${this.say(words)} */\n` : '';
      return `${comment}  | { kind: '${camel(kind)}'${type.map((field) => `; ${field}`).join('')} }\n`;
    };
    const rows = variants.map((variant) => {
      const fields = this.fields(variant.fields.ty.Struct, undefined, '');
      const codec = fields.map((field) => field.codec).join(', ');
      return {
        type: row(
          variant.name,
          fields.map((field) => field.type.trim().replace(/;$/, '')),
        ),
        codec: `  ${camel(variant.name)}: [${variant.number}, struct({ ${codec} })],\n`,
      };
    });
    const later = 'of a later version: the number of its kind, and its fields as they came';
    const opaque = row('opaque', ['number: number', 'bytes: Uint8Array'], later);
    // What follows on the page is the form in binary.
    const text = said?.text.replace(/ In binary:$/, '');
    const comment = text ? `/** ${this.say(text)} */\n` : '';
    this.types.push(
      `${comment}export type ${name} =\n${rows.map(({ type }) => type).join('')}${opaque}  ;\n`,
    );
    const codecs = rows.map(({ codec }) => codec).join('');
    this.codecs.push(`const ${lower(name)} = growing<${name}>({\n${codecs}});\n`);
  }

  frame({ name, body }) {
    const fields = body.ty.Struct;
    this.seen.add(body.name);
    const said = this.words[name];
    const typed = this.fields(fields, said, '  ');
    const comment = said?.text ? `/** ${this.say(said.text)} */\n` : '';
    this.types.push(
      `${comment}export interface ${typeName(body)} {\n${typed.map((f) => f.type).join('')}}\n`,
    );
    return typed.map((f) => f.codec).join(', ');
  }
}

const HEADER = '// Generated by scripts/generate.mjs from protocol/schema.json: do not edit.\n';

/** The generated files by name. */
export function generate(schema, page) {
  const generator = new Generator(page, schema.bodies);
  const bodies = schema.frames.map((frame) => generator.frame(frame));
  const union = schema.frames.map((frame) => `  | ({ type: '${frame.name}' } & ${typeName(frame.body)})\n`);
  const table = schema.frames.map((frame, at) => {
    return `  ${frame.name}: [${frame.number}, struct({ ${bodies[at]} })],\n`;
  });
  const codecs = generator.codecs.join('');
  const used = [...new Set(codecs.concat(table.join('')).match(/\b\w+\b/g))];
  const named = [
    ...new Set(Object.values(SCALARS).map((scalar) => scalar[1])),
    'growing',
    'list',
    'option',
    'struct',
    'unit',
  ];
  const imports = named.filter((name) => used.includes(name)).sort();
  const frames = `${HEADER}/* Frames of the protocol and their binary form. */
import { type Codec, ${imports.join(', ')} } from '../codec/values.js';
import type { ${IDS.sort().join(', ')} } from '../ids.js';

${generator.types.join('\n')}
/** Any frame, by its \`type\`. */
export type Frame =
${union.join('')}  ;

${codecs}
/** Number and body of every frame type. */
// biome-ignore lint: the bodies have as many types as there are frames
export const FRAMES: Record<Frame['type'], readonly [number, Codec<any>]> = {
${table.join('')}};
`;
  const codes = schema.codes.map(
    ({ code, name, meaning }) => `  /** ${generator.say(meaning)} */\n  ${name}: ${code},\n`,
  );
  // A bundle gets only those of these that it uses.
  const constants = schema.codes.map(({ code, name }) => `export const ${name} = ${code};\n`);
  const limits = schema.limits.map(({ name, value }) => `export const ${name} = ${value};\n`);
  return {
    'frames.ts': frames,
    'codes.ts': `${HEADER}\n${constants.join('')}\n/** Codes of errors and closes. The hundreds alone say what to do. */\nexport const Code = {\n${codes.join('')}} as const;\n`,
    'limits.ts': `${HEADER}/* Limits that hold before Welcome tells those of the server; units are in the names, else counts. */\n${limits.join('')}`,
  };
}

function main(check) {
  const schema = JSON.parse(readFileSync(new URL('protocol/schema.json', root), 'utf8'));
  const page = readFileSync(new URL('docs/protocol.md', root), 'utf8');
  for (const [name, text] of Object.entries(generate(schema, page))) {
    const file = new URL(name, out);
    if (!check) {
      writeFileSync(file, text);
    } else if (readFileSync(file, 'utf8') !== text) {
      console.error(`src/generated/${name} is out of date: run \`npm run generate\``);
      process.exitCode = 1;
    }
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) main(process.argv.includes('--check'));
