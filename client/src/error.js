/** What rejects a command: the server's code, or one of the client's own. */
export class PushyError extends Error {
  /**
   * @param {string} message
   * @param {string} code
   */
  constructor(message, code) {
    super(message);
    this.name = "PushyError";
    this.code = code;
  }
}
