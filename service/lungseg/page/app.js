// The page's frame: what is dropped, chosen or pasted, the colours, the key; the views do the rest.
import {about, askForKey, key, scanView} from "./service.js";
import {dropped, sort} from "./files.js";
import {listenForTheme} from "./theme.js";
import {problem, say, view} from "./ui.js";
import * as slices from "./slices.js";

const $ = (id) => document.getElementById(id);

/** Hands files to the view that shows them. */
async function take(files, folder = false) {
  if (!files.length) return;
  $("start-problems").replaceChildren();
  try {
    const found = await sort(files, folder);
    if (found.scan.length) await (await scanView()).open(found.scan);
    else await slices.open(found.slices);
  } catch (error) {
    fail(error);
  }
}

async function takeSample(which) {
  try {
    if (which === "scan") await (await scanView()).openSample();
    else await slices.openSample();
  } catch (error) {
    fail(error);
  }
}

function fail(error) {
  $("start-problems").replaceChildren(problem(error));
  view("start");
  say(error.title || "Something went wrong in this page");
}

function listen() {
  $("choose").addEventListener("click", () => $("files").click());
  $("choose-folder").addEventListener("click", () => $("folder").click());
  $("files").addEventListener("change", (event) => chosen(event.target, false));
  $("folder").addEventListener("change", (event) => chosen(event.target, true));
  $("sample-slice").addEventListener("click", () => takeSample("slice"));
  $("sample-scan").addEventListener("click", () => takeSample("scan"));
  $("new").addEventListener("click", startAgain);
  $("home").addEventListener("click", (event) => {
    event.preventDefault();
    startAgain();
  });
  $("key-button").addEventListener("click", async () => {
    if (await askForKey()) say("The key is kept until this tab closes.");
  });
  $("key").addEventListener("close", () => setTimeout(showKey)); // once it is kept
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files || [])];
    if (!files.length) return;
    event.preventDefault();
    take(files);
  });
}

function chosen(input, folder) {
  const files = [...input.files];
  for (const file of files) file.path = file.webkitRelativePath || file.name;
  input.value = "";
  take(files, folder);
}

function startAgain() {
  view("start");
  say("");
  $("choose").focus();
}

function listenForDrops() {
  const veil = $("veil");
  let depth = 0;
  const isFiles = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
  document.addEventListener("dragenter", (event) => {
    if (!isFiles(event)) return;
    depth += 1;
    veil.hidden = false;
  });
  document.addEventListener("dragleave", () => {
    depth = Math.max(0, depth - 1);
    veil.hidden = depth === 0;
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", async (event) => {
    event.preventDefault();
    depth = 0;
    veil.hidden = true;
    try {
      const {files, folder} = await dropped(event.dataTransfer);
      if (files.length || !isFiles(event)) await take(files, folder);
      else say("There is no file in what was dropped.");
    } catch { // what is shown stays
      say("What was dropped cannot be read: drop it again, or choose it.");
    }
  });
}

function showKey() {
  $("key-button").textContent = key() ? "Change key" : "Enter key";
}

async function introduce() {
  try {
    const found = await about();
    $("about").textContent = `lungseg ${found.version}`;
    $("key-button").hidden = !found.needs_key;
    showKey();
  } catch (error) {
    $("start-problems").replaceChildren(problem(error, {again: () => location.reload()}));
  }
}

listenForTheme($("theme"));
listen();
listenForDrops();
view("start");
introduce();
