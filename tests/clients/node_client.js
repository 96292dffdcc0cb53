// @grpc/grpc-js and fetch against the server: node node_client.js PROTO GRPC HTTP EXPECTED.json
//
// Runs beside the packages that it takes. Exits with 0 if all is as expected.
"use strict";
const assert = require("node:assert");
const fs = require("node:fs");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [proto, address, http, path] = process.argv.slice(2);
const want = JSON.parse(fs.readFileSync(path, "utf8"));
const options = { keepCase: true, longs: Number, enums: String, defaults: true, oneofs: true };
const { inference } = grpc.loadPackageDefinition(loader.loadSync(proto, options));
const client = new inference.GRPCInferenceService(address, grpc.credentials.createInsecure());

function call(method, request) {
  return new Promise((resolve, reject) =>
    client[method](request, (error, answer) => (error ? reject(error) : resolve(answer))));
}

function floats(buffer) {
  return Array.from({ length: buffer.length / 4 }, (_, index) => buffer.readFloatLE(4 * index));
}

function near(found, expected) {
  assert.strictEqual(found.length, expected.length);
  found.forEach((value, index) => assert(Math.abs(value - expected[index]) < 1e-4, `${value} and ${expected[index]}`));
}

async function overGrpc() {
  assert((await call("ServerLive", {})).live);
  assert((await call("ServerReady", {})).ready);
  assert((await call("ModelReady", { name: "model" })).ready);
  const metadata = await call("ModelMetadata", { name: "model" });
  assert.deepStrictEqual(metadata.inputs[1].shape, [-1, 3, 32, 32]);
  const flat = want.inputs.flat(Infinity);
  const raw = Buffer.alloc(4 * flat.length);
  flat.forEach((value, index) => raw.writeFloatLE(value, 4 * index));
  const tensor = { name: "model_input", datatype: "FP32", shape: [want.inputs.length, 3, 32, 32] };
  const outputs = [{ name: "logits" }, { name: "saliency.gradcam", parameters: { class_ids: { string_param: "0,3" } } }];
  for (const request of [
    { inputs: [tensor], raw_input_contents: [raw] },
    { inputs: [{ ...tensor, contents: { fp32_contents: flat } }] },
  ]) {
    const answer = await call("ModelInfer", { model_name: "model", id: "1", outputs, ...request });
    assert.strictEqual(answer.id, "1");
    near(floats(answer.raw_output_contents[0]), want.logits.flat());
    near(floats(answer.raw_output_contents[1]), want.maps.flat(Infinity));
    assert.strictEqual(answer.outputs[1].parameters.explainer.string_param, "gradcam");
  }
  await assert.rejects(call("ModelInfer", { model_name: "other", inputs: [tensor], raw_input_contents: [raw] }), (error) => {
    assert.strictEqual(error.code, grpc.status.NOT_FOUND);
    assert.match(error.details, /There is no model 'other'/);
    return true;
  });
}

async function overHttp() {
  const file = { encoded: want.png };
  const explanations = [{ explainer: "rise", rise: { maskCount: 64 } }];
  const post = (where, body) => fetch(`http://${http}${where}`, { method: "POST", body: JSON.stringify(body) });
  const answer = await (await post("/v1/predict", { images: [file] })).json();
  assert.strictEqual(answer.predictions[0].classes[0].classId, want.file_logits[0].indexOf(Math.max(...want.file_logits[0])));
  const stream = await post("/v1/predict:stream", { request: { images: [file], explanations } });
  const names = [...(await stream.text()).matchAll(/^event: (\w+)$/gm)].map((found) => found[1]);
  assert.strictEqual(names[0], "predicted");
  assert.strictEqual(names.at(-1), "finished");
  assert(names.includes("explained"));
  const input = { name: "image", datatype: "BYTES", shape: [1], data: [want.png] };
  const inferred = await (await post("/v2/models/model/infer", { inputs: [input], outputs: [{ name: "logits" }] })).json();
  near(inferred.outputs[0].data, want.file_logits[0]);
}

overGrpc().then(overHttp).then(
  () => { console.log("as expected"); client.close(); },
  (error) => { console.error(error); process.exit(1); });
