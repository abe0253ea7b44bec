/** The page: what happens on load, on a click, and when a file is dropped. */

import * as camera from "./camera.js";
import { median, topClasses } from "./classification.js";
import { download, load } from "./model.js";
import { decode, readable } from "./picture.js";
import { prepare, visiblePart } from "./preparation.js";
import { Problem } from "./problem.js";
import * as view from "./view.js";

const TIMED_RUNS = 9; // odd, so that the median is one of them

const element = (id) => document.getElementById(id);

let model = null;
let picture = null; // {bitmap, name}

/**
 * A function that runs `task` once at a time: calls wait for the one that is running, and only the newest is kept.
 * `task` gets a function which returns whether a newer call is waiting, as the first argument.
 */
function newestOnly(task) {
  let last = Promise.resolve();
  let newest = 0;
  return (...args) => {
    const mine = ++newest;
    const isOutdated = () => mine !== newest;
    last = last
      .then(() => isOutdated() || task(isOutdated, ...args))
      .catch((error) => report("picture-problem", error));
    return last;
  };
}

function report(id, error) {
  if (!(error instanceof Problem)) console.error(error);
  const problem = error instanceof Problem ? error : new Problem(`This failed: ${error.message}.`, "Reload the page.");
  view.showProblem(id, problem);
}

const classify = newestOnly(async (isOutdated) => {
  if (!picture) return;
  const network = model; // another may be loaded meanwhile
  view.showPicture(picture.bitmap, picture.name, network && visiblePart(picture.bitmap, network.input));
  if (!network) {
    view.showHint("The classes appear here as soon as a model is loaded.");
    return;
  }
  view.showAnswerIsOld(true);
  const start = performance.now();
  const pixels = prepare(readable(picture.bitmap), network.input);
  const preparation = performance.now() - start;

  const logits = await network.run(pixels); // not timed: the first run takes longer
  view.showClasses(topClasses(logits, network.classes));
  view.showTimes({ preparation, network: null, runs: TIMED_RUNS });
  const milliseconds = [];
  while (milliseconds.length < TIMED_RUNS) {
    await new Promise((resume) => setTimeout(resume)); // lets the browser show the answer and react to clicks
    if (isOutdated()) return;
    const runStart = performance.now();
    await network.run(pixels);
    milliseconds.push(performance.now() - runStart);
  }
  view.showTimes({ preparation, network: median(milliseconds), runs: TIMED_RUNS });
});

/** `read` returns the bytes of the file. */
const useModel = newestOnly(async (isOutdated, read, name) => {
  view.showProblem("model-problem", null);
  view.showModelLine(`Loading ${name}…`);
  try {
    const bytes = await read();
    view.showDownload(null);
    const loaded = await load(bytes, name);
    const old = model;
    model = loaded;
    view.showModel(model);
    await classify();
    await old?.release();
  } catch (error) {
    view.showDownload(null);
    if (model) view.showModel(model);
    else view.showModelLine("No model is loaded.");
    report("model-problem", error);
  }
});

const usePicture = newestOnly(async (isOutdated, read, name) => {
  view.showProblem("picture-problem", null);
  view.showAnswerIsOld(true);
  try {
    const bitmap = await read();
    picture?.bitmap.close();
    picture = { bitmap, name };
  } catch (error) {
    view.showAnswerIsOld(false);
    report("picture-problem", error);
    return;
  }
  classify();
});

function useFile(file) {
  if (!file) return;
  if (file.name.endsWith(".onnx")) {
    useModel(async () => new Uint8Array(await file.arrayBuffer()), file.name);
  } else {
    closeCamera();
    usePicture(() => decode(file, file.name), file.name);
  }
}

async function openCamera() {
  view.showProblem("picture-problem", null);
  if (!camera.isAvailable()) {
    // Over plain http, a phone still opens its camera for a file input that asks for it.
    element("camera-file").click();
    return;
  }
  view.showStage("viewfinder");
  element("close-camera").focus();
  try {
    await camera.open(element("viewfinder"));
  } catch (error) {
    closeCamera();
    report("picture-problem", error);
    return;
  }
  if (element("viewfinder").hidden) camera.close(element("viewfinder")); // closed before it had started
  else element("take-picture").disabled = false;
}

function closeCamera() {
  if (element("viewfinder").hidden) return;
  camera.close(element("viewfinder"));
  element("take-picture").disabled = true;
  view.showStage(picture ? "picture" : "placeholder");
  element("open-camera").focus({ preventScroll: true });
}

function takePicture() {
  usePicture(async () => {
    const bitmap = await createImageBitmap(element("viewfinder"));
    closeCamera();
    return bitmap;
  }, "Picture from the camera");
}

/** A click on the button opens the file input, and the chosen file is used. */
function connect(buttonId, inputId) {
  const input = element(inputId);
  if (buttonId) element(buttonId).addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    useFile(input.files[0]);
    input.value = ""; // choosing the same file again is a change, too
  });
}

function acceptDrops() {
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    useFile(event.dataTransfer.files[0]);
  });
}

connect("choose-picture", "picture-file");
connect("choose-model", "model-file");
connect(null, "camera-file");
element("open-camera").addEventListener("click", openCamera);
element("close-camera").addEventListener("click", closeCamera);
element("take-picture").addEventListener("click", takePicture);
acceptDrops();

const url = new URLSearchParams(location.search).get("model") ?? "model.onnx";
useModel(() => download(url, view.showDownload), url);
