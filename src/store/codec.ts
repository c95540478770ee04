/** How values lie in the database: a checksum, a blank, JSON. LMDB has no checksums of its own, and a flipped bit in a record must not pass. */
import { crc32 as zlibCrc32 } from 'node:zlib';

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  for (let k = 0; k < 8; k++) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
  return c >>> 0;
});

function tableCrc32(text: string): number {
  let crc = 0xffffffff;
  for (const byte of Buffer.from(text)) crc = (TABLE[(crc ^ byte) & 0xff] as number) ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

/** Node before 20.15 has no `zlib.crc32`. */
const crc32: (text: string) => number = typeof zlibCrc32 === 'function' ? zlibCrc32 : tableCrc32;

/** For tests: both ways give the same. */
export const checksums = { native: crc32, table: tableCrc32 };

export function encode(key: string, value: unknown): string {
  const json = JSON.stringify(value);
  return `${crc32(key + json)
    .toString(16)
    .padStart(8, '0')} ${json}`;
}

/** Throws when the text is not what was written under that key. */
export function decode(key: string, text: string): unknown {
  const json = text.slice(9);
  if (text[8] !== ' ' || Number.parseInt(text.slice(0, 8), 16) !== crc32(key + json)) {
    throw new Error(`the record ${key.slice(0, 100)} is damaged`);
  }
  return JSON.parse(json);
}
