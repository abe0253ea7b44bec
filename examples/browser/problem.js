/** What went wrong, in words for the user, and what to do about it. */
export class Problem extends Error {
  /**
   * @param {string} message what is wrong, with the file or value, as a sentence
   * @param {string} remedy what to do, as a sentence
   * @param {string} command a shell command that belongs to the remedy; "" for none
   */
  constructor(message, remedy, command = "") {
    super(message);
    this.remedy = remedy;
    this.command = command;
  }
}
