/** What a request came to that wasn't answered as hoped: the server's problem document, or no answer. */
export class Problem extends Error {
  constructor(
    /** HTTP status; 0 where the server couldn't be reached. */
    readonly status: number,
    /** The part of `type` that programs decide by, such as `no-report`. */
    readonly kind: string,
    /** A sentence for people. */
    detail: string,
    /** Seconds after which to try again; null if the server didn't say. */
    readonly retryAfter: number | null = null,
  ) {
    super(detail);
  }

  /** Whether the same request may do better in a while. */
  get passing(): boolean {
    return this.status === 0 || this.status === 429 || this.status === 503 || this.status === 504;
  }
}

/** Returns the problem that an answer describes. */
export async function problemOf(response: Response): Promise<Problem> {
  const document: { type?: string; detail?: string } = await response
    .clone()
    .json()
    .catch(() => ({}));
  const kind = document.type?.split(/[/:]/).pop() ?? 'unknown';
  const after = Number(response.headers.get('Retry-After') ?? Number.NaN);
  return new Problem(
    response.status,
    kind,
    document.detail ?? `HTTP ${response.status}`,
    Number.isFinite(after) ? after : null,
  );
}
