/** The error that rejects a command, with a code of the server or of the client. */
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
