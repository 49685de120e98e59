/** An error that is told to the client, as JSON with this HTTP status. */
export class Failure extends Error {
  /** @param {number} status @param {string} message @param {object} details more fields of the answer */
  constructor(status, message, details = {}) {
    super(message);
    this.status = status;
    this.details = details;
  }
}
