/**
 * The model is well-formed but this system cannot prove it: printed as `{"unsupported": reason}`, which is no failure.
 */
export class Unsupported extends Error {}

/** An input or a file that cannot be used; the message names what and where. */
export class BadInput extends Error {}
