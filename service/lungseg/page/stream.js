// An answer that comes in lines: progress, and at the end figures with a file in base64.

/** Lines of an answer as they come; the last is long, and is put together only once. */
export class Lines {
  constructor(heard) {
    this.heard = heard;
    this.pieces = [];
    this.line = null;
  }

  add(text) {
    let from = 0;
    for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n", from)) {
      this.pieces.push(text.slice(from, end));
      this.take(this.pieces.join(""));
      this.pieces = [];
      from = end + 1;
    }
    this.pieces.push(text.slice(from));
  }

  take(line) {
    const parsed = JSON.parse(line);
    if ("stage" in parsed) this.heard(parsed);
    else this.line = parsed;
  }

  last() {
    if (this.line?.error) throw problemOf(this.line.error);
    if (!this.line) throw problemOf({code: "broken_off", title: "The answer broke off", detail: "the connection ended before the answer was whole"});
    const {file, ...answer} = this.line;
    return {answer, zip: fromBase64(file.base64)};
  }
}

const problemOf = (document) => Object.assign(new Error(document.detail), document, {requestId: document.request_id});

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let at = 0; at < bytes.length; at += 1) bytes[at] = characters.charCodeAt(at);
  return bytes;
}
