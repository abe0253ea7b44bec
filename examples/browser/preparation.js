/**
 * From a picture of any size to the pixels that the network reads.
 *
 * Computes what `center_crop` in shufflenet_jax/data/stream/augment.py computes with TensorFlow: the short side is
 * resized bilinearly, then the central part is cut out. Browsers' own resizing differs between browsers, and from
 * TensorFlow, so we do not use it.
 */

// As in augment.py: of longer pictures only the central part is used.
const MAX_SIDE_RATIO = 16;

// So many pixels are read from a picture at a time: a phone's photograph has 50 million, and phones limit the memory.
const STRIP_PIXELS = 1 << 20;

/**
 * @typedef {{height: number, width: number, resize: number, antialias: boolean}} Input
 *   How a network wants its pictures: the short side resized to `resize` pixels, then the central `height` x `width`.
 * @typedef {{height: number, width: number, read: Function}} Picture
 *   Its size in pixels; `read(left, top, width, height)` returns the RGBA values of a part, a Uint8ClampedArray.
 */

/**
 * Resizes and crops a picture.
 *
 * @param {Picture} picture
 * @param {Input} input
 * @returns {Uint8Array} RGB, (input.height, input.width, 3)
 */
export function prepare(picture, input) {
  const { rows, columns } = geometry(picture, input);
  const rowFilters = filters(rows, input.antialias);
  const columnFilters = filters(columns, input.antialias);
  const sums = new Float64Array(input.height * input.width * 3);
  const left = columnFilters[0].start;
  const right = end(columnFilters);
  const usesOfRow = outputsOfEachRow(rowFilters);

  const stripRows = Math.max(1, Math.floor(STRIP_PIXELS / (right - left)));
  for (let top = rowFilters[0].start; top < end(rowFilters); top += stripRows) {
    const count = Math.min(stripRows, end(rowFilters) - top);
    const rgba = picture.read(left, top, right - left, count);
    for (let y = top; y < top + count; y++) {
      const uses = usesOfRow.get(y);
      if (!uses) continue; // without antialiasing, most rows of a large picture
      const line = resizeRow(rgba, (y - top) * (right - left), left, columnFilters);
      for (const { output, weight } of uses) {
        const offset = output * line.length;
        for (let i = 0; i < line.length; i++) sums[offset + i] += weight * line[i];
      }
    }
  }
  return new Uint8Array(sums.map((value) => value + 0.5)); // the conversion truncates
}

/**
 * The part of a picture that the network sees, in pixels of the picture.
 *
 * @param {{height: number, width: number}} picture
 * @param {Input} input
 * @returns {{left: number, top: number, width: number, height: number}}
 */
export function visiblePart(picture, input) {
  const { rows, columns } = geometry(picture, input);
  const y = rows.length / rows.resized;
  const x = columns.length / columns.resized;
  return {
    left: columns.start + columns.corner * x, top: rows.start + rows.corner * y,
    width: columns.count * x, height: rows.count * y,
  };
}

/**
 * Along each side: of `length` source pixels from `start` on, resized to `resized` pixels, `count` pixels from `corner`
 * on are wanted. TensorFlow computes the resized lengths in float32, where Math.fround rounds to.
 */
function geometry(picture, input) {
  const short = Math.min(picture.height, picture.width);
  const scale = Math.fround(input.resize / short);

  function side(whole, count) {
    const start = Math.floor(Math.max(whole - MAX_SIDE_RATIO * short, 0) / 2);
    const length = whole - 2 * start;
    const resized = roundHalfToEven(Math.fround(length * scale));
    return { start, length, resized, corner: roundHalfToEven((resized - count) / 2), count };
  }

  return { rows: side(picture.height, input.height), columns: side(picture.width, input.width) };
}

function roundHalfToEven(value) {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 ? floor + 1 : floor;
}

/** For each wanted pixel along a side, the first source pixel and the weights of it and of those after it. */
function filters({ start, length, resized, corner, count }, antialias) {
  const filter = antialias ? triangle : linear;
  return Array.from({ length: count }, (_, i) => {
    const { first, weights } = filter(corner + i, length, resized);
    return { start: start + first, weights };
  });
}

/** The two source pixels whose centres are around an output pixel's; float32, as in TensorFlow. */
function linear(output, length, resized) {
  const position = Math.fround(Math.fround((output + 0.5) * Math.fround(length / resized)) - 0.5);
  const first = Math.floor(position);
  if (first < 0 || first + 1 >= length) return { first: Math.max(0, first), weights: [1] }; // beyond the last centre
  const fraction = Math.fround(position - first);
  return { first, weights: [1 - fraction, fraction] };
}

/** A triangle that, where a picture is reduced, is wide enough to weight every source pixel. */
function triangle(output, length, resized) {
  const radius = Math.max(length / resized, 1);
  const centre = ((output + 0.5) * length) / resized;
  const first = Math.max(0, Math.ceil(centre - radius - 0.5));
  const last = Math.min(length - 1, Math.floor(centre + radius - 0.5));
  const weights = [];
  for (let i = first; i <= last; i++) weights.push(Math.max(0, 1 - Math.abs(i + 0.5 - centre) / radius));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return { first, weights: weights.map((weight) => weight / total) };
}

function end(allFilters) {
  const last = allFilters.at(-1);
  return last.start + last.weights.length;
}

/** Source row -> the output rows that it contributes to, with its weights. */
function outputsOfEachRow(rowFilters) {
  const uses = new Map();
  rowFilters.forEach(({ start, weights }, output) => {
    weights.forEach((weight, i) => {
      if (!uses.has(start + i)) uses.set(start + i, []);
      uses.get(start + i).push({ output, weight });
    });
  });
  return uses;
}

/** One source row, which begins at pixel `offset` of `rgba` and column `left` of the picture, resized: RGB. */
function resizeRow(rgba, offset, left, columnFilters) {
  const line = new Float64Array(columnFilters.length * 3);
  for (let x = 0; x < columnFilters.length; x++) {
    const { start, weights } = columnFilters[x];
    let red = 0, green = 0, blue = 0;
    let source = (offset + start - left) * 4;
    for (let i = 0; i < weights.length; i++, source += 4) {
      const weight = weights[i];
      red += weight * rgba[source];
      green += weight * rgba[source + 1];
      blue += weight * rgba[source + 2];
    }
    line[x * 3] = red;
    line[x * 3 + 1] = green;
    line[x * 3 + 2] = blue;
  }
  return line;
}
