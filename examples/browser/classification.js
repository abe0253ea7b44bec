/** From logits to the most probable classes, and how long that takes. */

/**
 * @param {ArrayLike<number>} logits
 * @returns {number[]} probabilities
 */
export function softmax(logits) {
  const largest = logits.reduce((a, b) => Math.max(a, b));
  const powers = Array.from(logits, (logit) => Math.exp(logit - largest));
  const total = powers.reduce((sum, power) => sum + power, 0);
  return powers.map((power) => power / total);
}

/**
 * @param {ArrayLike<number>} logits
 * @param {string[]} classes
 * @param {number} count
 * @returns {{name: string, probability: number}[]} the most probable first
 */
export function topClasses(logits, classes, count = 5) {
  return softmax(logits)
    .map((probability, i) => ({ name: classes[i], probability }))
    .sort((a, b) => b.probability - a.probability)
    .slice(0, count);
}

/** @param {number[]} values an odd number of them */
export function median(values) {
  return values.toSorted((a, b) => a - b)[(values.length - 1) / 2];
}
