// What can go wrong, in one typed error.
/**
 * What went wrong:
 * - `config`: the configuration or an argument cannot be used
 * - `refused`: refused for good, by the server or by its rules; `code` says why
 * - `full`: too many unresolved sends or open requests
 * - `inUse`: a send with this `tempId` is unresolved
 * - `expired`: not sent within 24 hours, given up
 * - `notSaved`: it could not be saved, so it was not accepted
 * - `timeout`: no answer in time
 * - `token`: there is no token
 * - `wrongUser`: the token is for another user than this client belongs to
 * - `persistence`: the saved state cannot be read
 * - `closed`: the client has stopped
 */
export type ErrorKind =
  | 'config'
  | 'refused'
  | 'full'
  | 'inUse'
  | 'expired'
  | 'notSaved'
  | 'timeout'
  | 'token'
  | 'wrongUser'
  | 'persistence'
  | 'closed';

/** Every error of this package. */
export class TernError extends Error {
  override readonly name = 'TernError';
  readonly kind: ErrorKind;
  /** The code of a refusal, see `Code`. */
  readonly code: number | null;
  /** The same call may succeed later, as it is. */
  readonly retryable: boolean;

  constructor(kind: ErrorKind, message: string, code: number | null = null) {
    super(message);
    this.kind = kind;
    this.code = code;
    this.retryable = kind === 'full' || kind === 'timeout' || (kind === 'refused' && temporary(code ?? 0));
  }
}

/** What a client does about a code: the hundreds of its number. */
export type CodeClass = 'normal' | 'fix' | 'authenticate' | 'reconnect' | 'backOff' | 'resync';

const CLASSES: readonly CodeClass[] = ['fix', 'authenticate', 'reconnect', 'backOff', 'resync'];

/** The class of a code; one that nobody knows means to back off. */
export const classOf = (code: number): CodeClass =>
  code === 0 || code === 1000 ? 'normal' : (CLASSES[Math.floor(code / 100) - 40] ?? 'backOff');

/** A request refused with this code may succeed later as it is. */
export const temporary = (code: number): boolean => /^(reconnect|backOff)$/.test(classOf(code));

export const refused = (code: number, detail: string): TernError =>
  new TernError('refused', `refused with ${code}: ${detail}`, code);

export const closed = (): TernError => new TernError('closed', 'the client has stopped');
