// Slices: one request each, shown one at a time or side by side.
import {problem, say, view} from "./ui.js";
import {send} from "./service.js";
import {readNpy} from "./npy.js";
import {unzip} from "./zip.js";

export async function open(files) {
  view("slices");
  say(`${files.length} files`);
}

export async function openSample() {
  const answer = await send("page/samples/chest.dcm", {method: "GET"});
  await open([new File([answer.bytes], "chest.dcm")]);
}

export function close() {}
