// NumPy's arrays of numbers, format versions 1 to 3, rows first.
const KINDS = {
  b1: Uint8Array, u1: Uint8Array, i1: Int8Array, u2: Uint16Array, i2: Int16Array,
  u4: Uint32Array, i4: Int32Array, f4: Float32Array, f8: Float64Array,
};

/** Where the header ends, and what it says: shape, kind of numbers. Null where it is no array. */
export function header(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 12 || view.getUint32(0) !== 0x934e554d || view.getUint16(4) !== 0x5059) return null;
  const long = bytes[6] > 1;
  const start = long ? 12 : 10;
  const end = start + (long ? view.getUint32(8, true) : view.getUint16(8, true));
  const text = new TextDecoder("latin1").decode(bytes.subarray(start, end));
  const shape = /'shape':\s*\(([^)]*)\)/.exec(text);
  const kind = /'descr':\s*'([<|>=])(\w+)'/.exec(text);
  if (!shape) return null;
  return {
    end,
    shape: shape[1].split(",").map((part) => part.trim()).filter(Boolean).map(Number),
    kind: kind && kind[1] !== ">" ? kind[2] : "",
    columnsFirst: /'fortran_order':\s*True/.test(text),
  };
}

/** The numbers of an array that this service wrote, and their shape. */
export function readNpy(bytes) {
  const found = header(bytes);
  const Kind = found && !found.columnsFirst && KINDS[found.kind];
  if (!Kind) throw new Error("expected an array of numbers, rows first");
  const count = found.shape.reduce((product, side) => product * side, 1);
  const from = bytes.byteOffset + found.end;
  const own = bytes.buffer.slice(from, from + count * Kind.BYTES_PER_ELEMENT);
  return {shape: found.shape, data: new Kind(own)};
}
