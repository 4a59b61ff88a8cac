// Takes folders, archives or files, and sends them as one tar (or as the archive that they are) with progress.
// The tar is a Blob of headers and files: the browser reads each file when it sends it.

const BLOCK = 512;
const ARCHIVES = { zip: "application/zip", tar: "application/x-tar", gz: "application/gzip", tgz: "application/gzip" };
const encoder = new TextEncoder();

function octal(value, width) {
  return value.toString(8).padStart(width - 1, "0") + "\0";
}

function header(name, size, kind) {
  const block = new Uint8Array(BLOCK);
  const put = (text, at) => block.set(encoder.encode(text), at);
  block.set(encoder.encode(name).slice(0, 100), 0);
  put(octal(0o644, 8), 100);
  put(octal(0, 8), 108);
  put(octal(0, 8), 116);
  put(octal(size, 12), 124);
  put(octal(0, 12), 136);
  put(" ".repeat(8), 148);
  put(kind, 156);
  put("ustar\0" + "00", 257);
  const sum = block.reduce((total, byte) => total + byte, 0);
  put(sum.toString(8).padStart(6, "0") + "\0 ", 148);
  return block;
}

// A pax record begins with its own length, whose digits count too.
function record(key, value) {
  const rest = encoder.encode(` ${key}=${value}\n`).length;
  let length = rest + String(rest).length;
  if (String(length).length > String(rest).length) length = rest + String(length).length;
  return encoder.encode(`${length} ${key}=${value}\n`);
}

function padding(size) {
  return new Uint8Array((BLOCK - (size % BLOCK)) % BLOCK);
}

function tar(entries) {
  const parts = [];
  for (const { path, file } of entries) {
    if (encoder.encode(path).length > 100 || /[^\x20-\x7e]/.test(path)) {
      const long = record("path", path);
      parts.push(header("pax", long.length, "x"), long, padding(long.length));
    }
    parts.push(header(path, file.size, "0"), file, padding(file.size));
  }
  parts.push(new Uint8Array(2 * BLOCK));
  return new Blob(parts);
}

function all(reader) {
  return new Promise((resolve, reject) => {
    const found = [];
    const more = () => reader.readEntries((some) => (some.length ? (found.push(...some), more()) : resolve(found)), reject);
    more();
  });
}

async function files(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [{ path: entry.fullPath.replace(/^\//, ""), file }];
  }
  const found = [];
  for (const inner of await all(entry.createReader())) found.push(...(await files(inner)));
  return found;
}

export default {
  template: `
    <div class="drop" :class="{ over }" @dragover.prevent="over = true" @dragleave="over = false" @drop.prevent="dropped">
      <template v-if="!request">
        <p class="drop-title">Drop folders here, one for each class</p>
        <p class="quiet">or a zip or tar of them</p>
        <div class="drop-buttons">
          <button type="button" class="button" @click="$refs.folder.click()">Choose a folder</button>
          <button type="button" class="button" @click="$refs.archive.click()">Choose an archive</button>
        </div>
        <input ref="folder" type="file" webkitdirectory hidden aria-label="Folder of class folders" @change="chosen">
        <input ref="archive" type="file" accept=".zip,.tar,.tgz,.gz" hidden aria-label="Archive" @change="chosen">
      </template>
      <template v-else>
        <p class="drop-title">{{ reading ? "Reading the folders …" : "Sending " + name }}</p>
        <progress :value="share" max="1" aria-label="Share of the upload that is sent"></progress>
        <p class="quiet">{{ Math.round(100 * share) }} % of {{ (size / 1e6).toFixed(1) }} MB</p>
        <button type="button" class="button" @click="cancel">Cancel</button>
      </template>
      <p v-if="fault" class="fault" role="alert">{{ fault }}</p>
    </div>`,
  props: { address: String },
  data: () => ({ over: false, request: null, reading: false, share: 0, size: 0, name: "", fault: "" }),
  methods: {
    async dropped(event) {
      this.over = false;
      const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
      this.request = {};
      this.reading = true;
      try {
        const found = (await Promise.all(entries.map(files))).flat();
        this.send(found);
      } catch (error) {
        this.request = null;
        this.fault = `The folders cannot be read: ${error.message}`;
      } finally {
        this.reading = false;
      }
    },
    chosen(event) {
      const found = [...event.target.files].map((file) => ({ path: file.webkitRelativePath || file.name, file }));
      event.target.value = "";
      this.send(found);
    },
    send(found) {
      this.fault = "";
      if (!found.length) {
        this.request = null;
        this.fault = "There is no file in it.";
        return;
      }
      const only = found.length === 1 ? found[0] : null;
      const kind = only && ARCHIVES[only.path.split(".").pop().toLowerCase()];
      const body = kind ? only.file : tar(found);
      this.size = body.size;
      this.share = 0;
      this.name = kind ? only.path : `${found.length} files`;
      const request = new XMLHttpRequest();
      this.request = request;
      request.open("POST", this.address);
      request.setRequestHeader("Content-Type", kind || "application/x-tar");
      request.upload.onprogress = (event) => (this.share = event.loaded / event.total);
      request.onload = () => this.ended(request);
      request.onerror = () => this.failed("The connection broke. Nothing was kept: try again.");
      request.onabort = () => (this.request = null);
      request.send(body);
    },
    ended(request) {
      let answer = {};
      try {
        answer = JSON.parse(request.responseText);
      } catch {
        answer = { detail: `The answer cannot be read (${request.status}).` };
      }
      if (request.status !== 201) return this.failed(answer.detail);
      this.request = null;
      this.$emit("sent", answer.id);
    },
    failed(detail) {
      this.request = null;
      this.fault = detail;
    },
    cancel() {
      if (this.request && this.request.abort) this.request.abort();
    },
  },
};
