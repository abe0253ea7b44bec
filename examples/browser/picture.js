/** Decodes pictures and gives access to their pixels. */

import { Problem } from "./problem.js";

/**
 * Decodes a picture file.
 *
 * The EXIF orientation is applied, which is createImageBitmap's default: a phone stores upright pictures sideways, and
 * its user expects them upright. `python -m shufflenet_jax.predict` does not apply it. Like that command, we ignore
 * colour profiles.
 *
 * @param {Blob} file
 * @param {string} name for messages
 * @returns {Promise<ImageBitmap>}
 * @throws {Problem} the browser cannot decode it
 */
export async function decode(file, name) {
  try {
    return await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    const empty = file.size === 0;
    throw new Problem(
      empty ? `${name} is empty.` : `${name} is not a picture that this browser can read.`,
      "Choose a JPEG, PNG or WebP file.",
    );
  }
}

/**
 * A decoded picture as `prepare` reads it. Transparent pixels are read as black.
 *
 * @param {ImageBitmap} bitmap
 * @returns {import("./preparation.js").Picture}
 */
export function readable(bitmap) {
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d", { willReadFrequently: true });
  return {
    height: bitmap.height,
    width: bitmap.width,
    read(left, top, width, height) {
      canvas.width = width; // assigning it also clears the canvas
      canvas.height = height;
      context.drawImage(bitmap, left, top, width, height, 0, 0, width, height);
      return context.getImageData(0, 0, width, height).data;
    },
  };
}
