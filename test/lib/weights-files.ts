/** Weight files in tests: reads safetensors, writes what `torch.save(state_dict)` writes. */
import { readFileSync } from 'node:fs';
import { crc32 } from 'node:zlib';

export interface Tensor {
  shape: number[];
  values: Float32Array;
}

/** The fp32 tensors of a safetensors file. */
export function readSafetensors(path: string): Map<string, Tensor> {
  const bytes = readFileSync(path);
  const length = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.subarray(8, 8 + length).toString()) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  const tensors = new Map<string, Tensor>();
  for (const [name, entry] of Object.entries(header)) {
    if (entry.dtype !== 'F32') continue;
    const data = Uint8Array.from(
      bytes.subarray(8 + length + entry.data_offsets[0], 8 + length + entry.data_offsets[1]),
    );
    tensors.set(name, { shape: entry.shape, values: new Float32Array(data.buffer) });
  }
  return tensors;
}

/** Pickle, protocol 2, of an `OrderedDict` of tensors whose storages lie beside it. */
function stateDictPickle(tensors: ReadonlyMap<string, Tensor>): Buffer {
  const parts: Buffer[] = [];
  const op = (...codes: number[]): void => void parts.push(Buffer.from(codes));
  const text = (value: string): void => {
    const bytes = Buffer.from(value);
    const head = Buffer.alloc(5);
    head[0] = 0x58; // BINUNICODE
    head.writeUInt32LE(bytes.length, 1);
    parts.push(head, bytes);
  };
  const global = (module: string, name: string): void => void parts.push(Buffer.from(`c${module}\n${name}\n`));
  const int = (value: number): void => {
    const out = Buffer.alloc(5);
    out[0] = 0x4a; // BININT
    out.writeInt32LE(value, 1);
    parts.push(out);
  };
  const tuple = (write: () => void): void => {
    op(0x28); // MARK
    write();
    op(0x74); // TUPLE
  };
  const emptyDict = (): void => {
    global('collections', 'OrderedDict');
    op(0x29, 0x52); // EMPTY_TUPLE REDUCE
  };
  op(0x80, 2);
  emptyDict();
  op(0x28);
  let key = 0;
  for (const [name, { shape, values }] of tensors) {
    text(name);
    global('torch._utils', '_rebuild_tensor_v2');
    tuple(() => {
      tuple(() => {
        text('storage');
        global('torch', 'FloatStorage');
        text(`${key++}`);
        text('cpu');
        int(values.length);
      });
      op(0x51); // BINPERSID
      int(0);
      for (const row of [shape, shape.map((_, at) => shape.slice(at + 1).reduce((a, b) => a * b, 1))]) {
        tuple(() => {
          for (const value of row) int(value);
        });
      }
      op(0x89); // NEWFALSE
      emptyDict();
    });
    op(0x52);
  }
  op(0x75, 0x2e); // SETITEMS STOP
  return Buffer.concat(parts);
}

/** A `.pth` as torch 1.6 and later writes it: a zip of stored entries, each one's data at a multiple of 64 bytes. */
export function torchFile(tensors: ReadonlyMap<string, Tensor>): Buffer {
  const entries: [string, Buffer][] = [
    ['archive/data.pkl', stateDictPickle(tensors)],
    ['archive/byteorder', Buffer.from('little')],
    ...[...tensors.values()].map(({ values }, at): [string, Buffer] => [
      `archive/data/${at}`,
      Buffer.from(values.buffer, values.byteOffset, values.byteLength),
    ]),
    ['archive/version', Buffer.from('3\n')],
  ];
  const files: Buffer[] = [];
  const directory: Buffer[] = [];
  let at = 0;
  for (const [name, data] of entries) {
    const path = Buffer.from(name);
    const padding = (64 - ((at + 30 + path.length + 4) % 64)) % 64;
    const extra = Buffer.alloc(4 + padding);
    extra.write('FB', 'latin1');
    extra.writeUInt16LE(padding, 2);
    const common = Buffer.alloc(26);
    common.writeUInt16LE(20, 0);
    common.writeUInt32LE(crc32(data) >>> 0, 10);
    common.writeUInt32LE(data.length, 14);
    common.writeUInt32LE(data.length, 18);
    common.writeUInt16LE(path.length, 22);
    const local = Buffer.from(common);
    local.writeUInt16LE(extra.length, 24);
    files.push(Buffer.from('PK\x03\x04', 'latin1'), local, path, extra, data);
    const rest = Buffer.alloc(14);
    rest.writeUInt32LE(at, 10);
    directory.push(Buffer.from('PK\x01\x02\x14\x00', 'latin1'), common, rest, path);
    at += 30 + path.length + extra.length + data.length;
  }
  const index = Buffer.concat(directory);
  const end = Buffer.alloc(22);
  end.write('PK\x05\x06', 'latin1');
  end.writeUInt16LE(entries.length, 8);
  end.writeUInt16LE(entries.length, 10);
  end.writeUInt32LE(index.length, 12);
  end.writeUInt32LE(at, 16);
  return Buffer.concat([...files, index, end]);
}
