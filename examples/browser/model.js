/** Loads a network that `python -m shufflenet_jax.export` wrote, and runs it with onnxruntime-web. */

import { readMetadata } from "./onnx_metadata.js";
import { prepare } from "./preparation.js";
import { Problem } from "./problem.js";

const METADATA_KEY = "shufflenet_jax";
const FORMAT = 1;
const EXPORT = "python -m shufflenet_jax.export --checkpoint=CHECKPOINT --to=examples/browser/model.onnx";

/**
 * Downloads a file.
 *
 * @param {string} url
 * @param {(fraction: number) => void} onProgress called with the part that has arrived, if the server states the size
 * @returns {Promise<Uint8Array>}
 * @throws {Problem} it is not there, or not reachable
 */
export async function download(url, onProgress) {
  try {
    // "no-cache" asks the server whether the file has changed; otherwise an older export might be used for days.
    const response = await fetch(url, { cache: "no-cache" });
    if (!response.ok) {
      throw new Problem(
        `There is no model at ${url} (status ${response.status}).`,
        "Load a model file below, or export one to the folder of the page:", EXPORT,
      );
    }
    const size = Number(response.headers.get("Content-Length"));
    return await readAll(response.body, (received) => size && onProgress(Math.min(1, received / size)));
  } catch (error) {
    if (error instanceof Problem) throw error;
    throw new Problem(
      `The model at ${url} cannot be downloaded: ${error.message}.`,
      "Check the address and the connection; a server other than this page's must allow cross-origin requests (CORS).",
    );
  }
}

async function readAll(stream, onReceived) {
  const reader = stream.getReader();
  const parts = [];
  let received = 0;
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    parts.push(part.value);
    received += part.value.length;
    onReceived(received);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

/**
 * Prepares a network for running.
 *
 * @param {Uint8Array} bytes the ONNX file
 * @param {string} name of the file, for messages
 * @returns {Promise<Model>}
 * @throws {Problem} the file is none of ours, or cannot be run
 */
export async function load(bytes, name) {
  const description = describe(bytes, name);
  const ort = await importRuntime();
  try {
    const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
    const model = new Model(ort, session, description, bytes.length);
    // Fails if, for instance, the file fixes another batch size. Otherwise the browser compiles the code for pictures
    // meanwhile, and the first answer comes sooner.
    await model.run(prepare(blackPicture(2 * model.input.resize), model.input));
    return model;
  } catch (error) {
    if (/no available backend/.test(error.message)) throw missingRuntime(error);
    throw new Problem(`onnxruntime-web cannot run ${name}: ${error.message}.`, "Export it again:", EXPORT);
  }
}

function blackPicture(side) {
  return { height: side, width: side, read: (left, top, width, height) => new Uint8ClampedArray(width * height * 4) };
}

/** The file's metadata, checked. */
function describe(bytes, name) {
  let text;
  try {
    text = readMetadata(bytes).get(METADATA_KEY);
  } catch (error) {
    throw new Problem(
      `${name} is not an ONNX model, or is incomplete: ${error.message}.`, "Load another file, or export one:", EXPORT,
    );
  }
  if (text === undefined) {
    throw new Problem(
      `${name} is an ONNX model that shufflenet_jax did not export: it has no class names and no picture size.`,
      "Load another file, or export one:", EXPORT,
    );
  }
  let description;
  try {
    description = JSON.parse(text);
  } catch (error) {
    throw new Problem(`The metadata of ${name} are damaged: ${error.message}.`, "Export it again:", EXPORT);
  }
  if (description.format !== FORMAT) {
    throw new Problem(
      `${name} has format ${description.format}, and this page reads format ${FORMAT}.`,
      "Use the page of the version that exported the file, or export it again:", EXPORT,
    );
  }
  return description;
}

/** onnxruntime-web is imported only here, so that its absence can be explained. */
async function importRuntime() {
  try {
    const ort = await import("./vendor/ort.wasm.bundle.min.js");
    // Several threads need a page that is cross-origin isolated, and so a server that sends special headers.
    ort.env.wasm.numThreads = 1;
    ort.env.logLevel = "error";
    return ort;
  } catch (error) {
    throw missingRuntime(error);
  }
}

function missingRuntime(error) {
  return new Problem(
    `onnxruntime-web cannot be loaded from the page's folder vendor/ (${error.message}).`,
    "Install it there:", "make browser",
  );
}

/** A network that is ready to run. */
export class Model {
  #ort;
  #session;

  constructor(ort, session, description, bytes) {
    this.#ort = ort;
    this.#session = session;
    /** Name and settings of the network. */
    this.network = description.network;
    /** @type {string[]} */
    this.classes = description.classes;
    /** @type {import("./preparation.js").Input} */
    this.input = description.input;
    /** The training step of the checkpoint. */
    this.step = description.step;
    /** Size of the file. */
    this.bytes = bytes;
  }

  /**
   * @param {Uint8Array} pixels RGB, (height, width, 3)
   * @returns {Promise<Float32Array>} logits, (classes)
   */
  async run(pixels) {
    const { height, width } = this.input;
    const images = new this.#ort.Tensor("uint8", pixels, [1, height, width, 3]);
    const { logits } = await this.#session.run({ images });
    return logits.data;
  }

  async release() {
    await this.#session.release();
  }
}
