/**
 * Reads the metadata of an ONNX file, which onnxruntime-web does not give access to.
 *
 * An ONNX file is a protobuf message, `ModelProto`. Of its fields we read only `metadata_props` (number 14), a repeated
 * `StringStringEntryProto` (key = 1, value = 2), and note whether there is a `graph` (number 7).
 */

const GRAPH = 7;
const METADATA_PROPS = 14;
const KEY = 1;
const VALUE = 2;

// How a field's value is encoded, the lower three bits of its tag.
const VARINT = 0;
const FIXED64 = 1;
const LENGTH_DELIMITED = 2;
const FIXED32 = 5;

/**
 * The entries of `metadata_props`.
 *
 * @param {Uint8Array} bytes a whole ONNX file
 * @returns {Map<string, string>}
 * @throws {RangeError} the bytes are not a complete ONNX file
 */
export function readMetadata(bytes) {
  const entries = new Map();
  let hasGraph = false;
  for (const { number, value } of fields(bytes)) {
    hasGraph ||= number === GRAPH;
    if (number === METADATA_PROPS && value) {
      const entry = new Map([...fields(value)].map((field) => [field.number, field.value]));
      entries.set(text(entry.get(KEY)), text(entry.get(VALUE)));
    }
  }
  if (!hasGraph) throw new RangeError("there is no graph");
  return entries;
}

function text(value) {
  return new TextDecoder().decode(value ?? new Uint8Array());
}

/** Yields the number and the bytes of each field of a message; `null` for numbers, which are skipped. */
function* fields(bytes) {
  let position = 0;

  // Numbers of up to 53 bits are exact, and no length of a file is larger.
  function varint() {
    let result = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      if (position >= bytes.length) throw new RangeError("a number ends after the end of the file");
      const byte = bytes[position++];
      result += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return result;
    }
    throw new RangeError("a number has more than 64 bits");
  }

  while (position < bytes.length) {
    const tag = varint();
    const number = Math.floor(tag / 8);
    const encoding = tag % 8;
    let value = null;
    if (encoding === VARINT) varint();
    else if (encoding === FIXED64) position += 8;
    else if (encoding === FIXED32) position += 4;
    else if (encoding === LENGTH_DELIMITED) {
      const length = varint();
      value = bytes.subarray(position, position + length);
      position += length;
    } else throw new RangeError(`a field has the unknown encoding ${encoding}`);
    if (position > bytes.length) throw new RangeError("a field ends after the end of the file");
    yield { number, value };
  }
}
