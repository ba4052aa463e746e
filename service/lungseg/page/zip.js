// Files of a zip archive that this service wrote: stored or deflated, below 4 GiB.
const END = 0x06054b50;
const ENTRY = 0x02014b50;
const LONGEST_COMMENT = 65535 + 22;

/** Of each file by its name a function that unpacks it. */
export function unzip(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let end = bytes.length - 22;
  const least = Math.max(0, bytes.length - LONGEST_COMMENT);
  while (end >= least && view.getUint32(end, true) !== END) end -= 1;
  if (end < least) throw new Error("expected a zip archive, received something else");
  const files = new Map();
  let place = view.getUint32(end + 16, true);
  for (let left = view.getUint16(end + 10, true); left > 0; left -= 1) {
    if (view.getUint32(place, true) !== ENTRY) throw new Error("the zip archive is damaged");
    const [nameLength, extra, comment] = [28, 30, 32].map((at) => view.getUint16(place + at, true));
    const name = new TextDecoder().decode(bytes.subarray(place + 46, place + 46 + nameLength));
    const method = view.getUint16(place + 10, true);
    const packed = view.getUint32(place + 20, true);
    const local = view.getUint32(place + 42, true);
    const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    files.set(name, () => unpacked(bytes.subarray(start, start + packed), method));
    place += 46 + nameLength + extra + comment;
  }
  return files;
}

async function unpacked(bytes, method) {
  if (method === 0) return bytes;
  if (method !== 8) throw new Error("expected a deflated file in the zip archive");
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
