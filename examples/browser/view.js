/** Writes into the page. All text is set as text, never as HTML: a model's class names may contain anything. */

const element = (id) => document.getElementById(id);

const DISPLAY_PIXELS = 1280; // the longest side of the displayed picture
const SHADE = "rgb(0 0 0 / 50%)"; // over what the network does not see
const FRAME = "rgb(255 255 255 / 90%)"; // around what it sees

/**
 * @param {"model-problem" | "picture-problem"} id
 * @param {import("./problem.js").Problem | null} problem null removes the message
 */
export function showProblem(id, problem) {
  element(id).hidden = !problem;
  if (!problem) return;
  const command = document.createElement("code");
  command.textContent = problem.command;
  const message = document.createElement("strong");
  message.textContent = problem.message;
  element(id).replaceChildren(message, ` ${problem.remedy ?? ""} `, ...(problem.command ? [command] : []));
}

/** @param {number | null} fraction of the download that is done; null if there is none */
export function showDownload(fraction) {
  element("download").hidden = fraction === null;
  element("download").value = fraction ?? 0;
}

/** @param {string} text */
export function showModelLine(text) {
  element("model-line").textContent = text;
}

/** @param {import("./model.js").Model} model */
export function showModel(model) {
  const parts = [
    model.network,
    `${model.classes.length.toLocaleString("en")} classes`,
    `${(model.bytes / 1e6).toFixed(1)} MB`,
  ];
  showModelLine(parts.join(" · "));
}

/** What the picture's place shows: its text, a picture or the camera. */
export function showStage(what) {
  for (const id of ["placeholder", "picture", "viewfinder"]) element(id).hidden = id !== what;
  element("sources").hidden = what === "viewfinder";
  element("shutter").hidden = what !== "viewfinder";
}

/**
 * Draws a picture, and darkens what the network does not see.
 *
 * @param {ImageBitmap} bitmap
 * @param {string} name
 * @param {{left: number, top: number, width: number, height: number} | null} part what it sees; null if not known yet
 */
export function showPicture(bitmap, name, part) {
  const canvas = element("picture");
  const scale = Math.min(1, DISPLAY_PIXELS / Math.max(bitmap.width, bitmap.height));
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  canvas.setAttribute("aria-label", name);
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  if (part) {
    const rectangle = [part.left, part.top, part.width, part.height].map((length) => length * scale);
    context.beginPath();
    context.rect(0, 0, canvas.width, canvas.height);
    context.rect(...rectangle);
    context.fillStyle = SHADE;
    context.fill("evenodd");
    context.strokeStyle = FRAME;
    context.lineWidth = Math.max(canvas.width, canvas.height) / 300;
    context.strokeRect(...rectangle);
  }
  showStage("picture");
}

/** Marks the answer that is shown as an old one, until the next is shown or this is taken back. */
export function showAnswerIsOld(isOld) {
  element("answer").setAttribute("aria-busy", isOld);
}

/** @param {string} text shown in place of an answer */
export function showHint(text) {
  showAnswerIsOld(false);
  const hint = document.querySelector("#answer .hint");
  hint.textContent = text;
  hint.hidden = false;
  element("top-classes").hidden = true;
  element("times").hidden = true;
}

/** @param {{name: string, probability: number}[]} classes the most probable first */
export function showClasses(classes) {
  showAnswerIsOld(false);
  document.querySelector("#answer .hint").hidden = true;
  element("top-classes").hidden = false;
  element("top-classes").replaceChildren(...classes.map(classItem));
}

function classItem({ name, probability }) {
  // ImageNet's names are a WordNet identifier and synonyms: "n01440764 tench, Tinca tinca".
  const [, identifier, first, others] = name.match(/^(n\d{8} )?([^,]*)(?:, )?(.*)$/s);
  const item = document.createElement("li");
  item.title = identifier ?? "";
  const percent = `${(100 * probability).toFixed(1)} %`;
  item.append(span("name", first, span("synonyms", others && ` ${others}`)), span("probability", percent), bar(probability));
  return item;
}

function bar(probability) {
  const whole = span("bar", "", span("", ""));
  whole.setAttribute("aria-hidden", "true");
  whole.firstElementChild.style.width = `${100 * probability}%`;
  return whole;
}

function span(className, text, ...children) {
  const result = document.createElement("span");
  result.className = className;
  result.append(text, ...children);
  return result;
}

/**
 * @param {{preparation: number, network: number | null, runs: number}} times in milliseconds; the network's is null
 *   while it is being measured
 */
export function showTimes({ preparation, network, runs }) {
  element("times").hidden = false;
  element("preparation-ms").textContent = `${preparation.toFixed(1)} ms`;
  element("network-ms").textContent = network === null ? "…" : `${network.toFixed(1)} ms`;
  element("runs").textContent = network === null ? "measuring" : `median of ${runs} runs`;
}
