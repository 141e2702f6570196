// Where tokens come from: the one given is used while it is good, then a new one is asked for.
import { TernError } from './errors.js';

/** Why a token is asked for. */
export type TokenReason =
  /** There is none, or it has expired. */
  | { why: 'connect' }
  /** The token of the live session expires soon; the new one must be for the same user. */
  | { why: 'expiring' }
  /** The server refused the last token with this code: the same one will be refused again. */
  | { why: 'rejected'; code: number };

/**
 * Gives a token that is valid now. When it throws, it is asked again with back-off; a `TernError` of
 * kind `'token'` means that there will be none, and the client stops.
 */
export type RenewToken = (reason: TokenReason) => string | Promise<string>;

/** The tokens of one client. */
export class Tokens {
  /** When the token in use expires, by the own clock, Unix milliseconds. */
  expiresMs = Infinity;
  #token: string | null;
  readonly #renewToken: RenewToken | null;

  constructor(token: string | null, renewToken: RenewToken | null) {
    this.#token = token;
    this.#renewToken = renewToken;
  }

  /** The token to use. */
  async take(reason: TokenReason, now: number): Promise<string> {
    if (reason.why === 'connect' && this.#token !== null && now < this.expiresMs) return this.#token;
    if (!this.#renewToken) {
      const code = reason.why === 'rejected' ? ` with ${reason.code}` : '';
      throw new TernError('token', `the only token has expired or was refused${code}; set \`renewToken\``);
    }
    this.#token = null;
    this.#token = await this.#renewToken(reason);
    this.expiresMs = Infinity;
    return this.#token;
  }
}
