// What was dropped, chosen or pasted: found in folders, and told apart by content, not by name.
import {header as npyHeader} from "./npy.js";

/** So many DICOM files at once are one scan; fewer are slices. */
const SCAN_FROM = 10;
/** DICOM that lost its preamble begins with an element of group 0002 or 0008. */
const BARE_DICOM = /^(?:[\x02\x08]\0.\0(?:[A-Za-z]{2}|.\0{3})|\0\x08\0.[A-Z]{2})/s;
const HEAD_BYTES = 1024;
const AT_A_TIME = 16;

/** Files of a drop, those within folders too, each with its `path`. */
export async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return {files: [...transfer.files], folder: false};
  const files = [];
  for (const entry of entries) await walk(entry, files);
  return {files, folder: entries.some((entry) => entry.isDirectory)};
}

async function walk(entry, files) {
  if (entry.name.startsWith(".")) return;
  if (entry.isFile) {
    const file = await new Promise((done, fail) => entry.file(done, fail));
    file.path = entry.fullPath.replace(/^\//, "");
    files.push(file);
    return;
  }
  const reader = entry.createReader();
  for (;;) { // a reader hands out a hundred at most
    const some = await new Promise((done, fail) => reader.readEntries(done, fail));
    if (!some.length) return;
    for (const one of some) await walk(one, files);
  }
}

/** Which files are slices and which make a scan, each with its `kind`; what is neither, the service will refuse. */
export async function sort(files, folder = false) {
  for (let at = 0; at < files.length; at += AT_A_TIME) {
    await Promise.all(files.slice(at, at + AT_A_TIME).map(async (file) => {
      file.kind = await kindOf(file);
    }));
  }
  const of = (kind) => files.filter((file) => file.kind === kind);
  const [dicom, volumes] = [of("dicom").length, of("volume")];
  const series = dicom >= (folder ? 1 : SCAN_FROM);
  if (series && dicom > volumes.length) return {slices: [], scan: files}; // a CD has archives of its viewer, too
  if (volumes.length) return {slices: [], scan: volumes};
  return {slices: files, scan: []};
}

/** "volume", "dicom", "picture", or "" where only the service can tell. */
async function kindOf(file) {
  let bytes;
  try {
    bytes = new Uint8Array(await file.slice(0, HEAD_BYTES).arrayBuffer());
  } catch { // a file that went away: sending it will say so
    return "";
  }
  const text = (from, to) => String.fromCharCode(...bytes.subarray(from, to));
  if (text(128, 132) === "DICM") return "dicom";
  const npy = npyHeader(bytes);
  if (npy) return npy.shape.length > 2 ? "volume" : "picture";
  if (/^PK\x03\x04/.test(text(0, 4)) || /^\x1f\x8b/.test(text(0, 2))) return "volume";
  if (/^n[+i]1\0/.test(text(344, 348)) || /^n[+i]2\0/.test(text(4, 8))) return "volume";
  if (/^NRRD/.test(text(0, 4)) || /^\s*(ObjectType|NDims|Comment)\s*=/.test(text(0, 64))) return "volume";
  if (/^(\x89PNG|\xff\xd8\xff|II[*+]\0|MM\0[*+]|BM)/.test(text(0, 4))) return "picture";
  if (BARE_DICOM.test(text(0, 8))) return "dicom";
  return "";
}
