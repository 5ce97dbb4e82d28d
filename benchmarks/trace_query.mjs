// Asks Perfetto's trace processor about a trace, in this process and without a network.
// Usage: node trace_query.mjs FOLDER TRACE SQL...
// FOLDER holds trace_processor.wasm, engine_bundle.node.js and engine.mjs (README.md says from where).

import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import vm from 'node:vm';

const [folder, trace, ...queries] = process.argv.slice(2);
if (queries.length === 0) {
  console.error('usage: node trace_query.mjs FOLDER TRACE SQL...');
  process.exit(2);
}
const file = (name) => resolve(folder, name);
const { EngineBase } = await import(pathToFileURL(file('engine.mjs')).href);

// The bundle is made for a worker of a browser; this is as much of one as it looks for.
globalThis.self = globalThis;
globalThis.WorkerGlobalScope = class {};
const location = { href: `${pathToFileURL(folder).href}/` };
Object.defineProperty(globalThis, 'location', { value: location, configurable: true });
globalThis.wasmBytes = new Uint8Array(readFileSync(file('trace_processor.wasm')));
let bundle = readFileSync(file('engine_bundle.node.js'), 'utf8');
for (const [from, to] of [
  ['this.useMemory64 = hasMemory64Support();', 'this.useMemory64 = false;'],
  ['locateFile: (s) => s,', 'locateFile: (s) => s, wasmBinary: globalThis.wasmBytes,'],
  ['new wasm_bridge_1.WasmBridge();', 'globalThis.bridge = new wasm_bridge_1.WasmBridge();'],
]) {
  if (!bundle.includes(from)) throw new Error(`another release of the package: no ${from}`);
  bundle = bundle.replace(from, to);
}
vm.runInThisContext(bundle);

const { port1, port2 } = new MessageChannel();
globalThis.bridge.initialize(port1);
class Engine extends EngineBase {
  mode = 'WASM';
  id = 'trace';

  constructor() {
    super();
    port2.onmessage = (message) => this.onRpcResponseBytes(message.data);
  }

  rpcSendRequestBytes(bytes) {
    port2.postMessage(bytes);
  }
}
const engine = new Engine();
// The bundle does not say when it is ready.
await new Promise((ready) => setTimeout(ready, 3000));
await engine.parse(new Uint8Array(readFileSync(trace)));
await engine.notifyEof();
for (const sql of queries) {
  const result = await engine.query(sql);
  const columns = result.columns();
  console.log(`> ${sql}\n${columns.join('\t')}`);
  for (const row = result.iter({}); row.valid(); row.next()) {
    console.log(columns.map((column) => String(row.get(column))).join('\t'));
  }
}
process.exit(0);
