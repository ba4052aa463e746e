// Volumes of NIfTI-1 that this service wrote, and how they lie in the patient.
const HEADER_BYTES = 348;
const KINDS = {2: Uint8Array, 4: Int16Array, 16: Float32Array};
const PATIENT_AXES = 3;

/** Sizes (columns, rows, slices), values with columns fastest, and the header's matrix to RAS mm. */
export function readNifti(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const little = view.getInt32(0, true) === HEADER_BYTES;
  const sizes = [42, 44, 46].map((at) => view.getInt16(at, little));
  const count = sizes[0] * sizes[1] * sizes[2];
  const Kind = KINDS[view.getInt16(70, little)];
  const start = view.getFloat32(108, little);
  const spacing = [80, 84, 88].map((at) => Math.abs(view.getFloat32(at, little)));
  const row = (at) => [0, 4, 8, 12].map((more) => view.getFloat32(at + more, little));
  const matrix = view.getInt16(254, little) > 0 ? [280, 296, 312].map(row) : null;
  const width = Kind.BYTES_PER_ELEMENT;
  let raw = bytes.subarray(start, start + count * width);
  if (!little && width > 1) raw = swapped(raw, width);
  if (raw.byteOffset % width) raw = raw.slice();
  return {sizes, spacing, matrix, values: new Kind(raw.buffer, raw.byteOffset, count)};
}

function swapped(bytes, width) {
  const turned = new Uint8Array(bytes.length);
  for (let at = 0; at < bytes.length; at += width) {
    for (let byte = 0; byte < width; byte += 1) turned[at + byte] = bytes[at + width - 1 - byte];
  }
  return turned;
}

/**
 * Which axis of the grid runs along which of the patient, from right to left, front to back and
 * head to feet, as pictures of the three planes have them; nothing is resampled.
 *
 * `lps` is the matrix of the answer from (slice, row, column, 1) to LPS mm. Without it the header
 * counts, and without that the convention: columns to the left, rows to the back, slices to the
 * head, at no known place.
 */
export function axesOf({sizes, spacing, matrix}, lps) {
  const strides = [1, sizes[0], sizes[0] * sizes[1]];
  const toLps = lps ? lps.slice(0, 3).map((row) => [row[2], row[1], row[0], row[3]])
    : matrix ? matrix.map((row, axis) => (axis < 2 ? row.map((part) => -part) : row))
      : [[spacing[0], 0, 0, 0], [0, spacing[1], 0, 0], [0, 0, spacing[2], 0]];
  const free = new Set([0, 1, 2]);
  const axes = [];
  const byClarity = [0, 1, 2].sort((one, other) => clarity(toLps, other) - clarity(toLps, one));
  for (const axis of byClarity) {
    const voxel = [...free].reduce((best, one) =>
      (share(toLps, axis, one) > share(toLps, axis, best) ? one : best));
    free.delete(voxel);
    const grows = Math.sign(toLps[axis][voxel] || 1) * (axis === 2 ? -1 : 1);
    const size = sizes[voxel];
    axes[axis] = {
      voxel,
      size,
      spacing: length(toLps, voxel),
      step: grows * strides[voxel],
      start: grows > 0 ? 0 : (size - 1) * strides[voxel],
    };
  }
  return {axes, toLps, placed: Boolean(lps || matrix)};
}

/** Patient position in LPS mm of a place counted along the patient's axes. */
export function positionOf({axes, toLps}, place) {
  const voxel = [0, 0, 0];
  for (let axis = 0; axis < PATIENT_AXES; axis += 1) {
    const {voxel: which, step, size} = axes[axis];
    voxel[which] = step > 0 ? place[axis] : size - 1 - place[axis];
  }
  return toLps.map((row) => row[0] * voxel[0] + row[1] * voxel[1] + row[2] * voxel[2] + row[3]);
}

const length = (matrix, voxel) => Math.hypot(...matrix.map((row) => row[voxel]));
const share = (matrix, axis, voxel) => Math.abs(matrix[axis][voxel]) / (length(matrix, voxel) || 1);
const clarity = (matrix, axis) => Math.max(...[0, 1, 2].map((voxel) => share(matrix, axis, voxel)));
