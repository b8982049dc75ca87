/** The API of this server, typed by its OpenAPI document. */
import createClient, { type Middleware } from 'openapi-fetch';
import { apiKey, askForKey } from '../state/session.ts';
import { Problem, problemOf } from './problem.ts';
import type { components, paths } from './schema.ts';

export type Schemas = components['schemas'];

/** Returns the absolute address of a path of this server, which may be below a prefix. */
export const addressOf = (path: string): string => new URL(path, document.baseURI).href;

const attachKey: Middleware = {
  onRequest({ request }) {
    if (apiKey.value) request.headers.set('Authorization', `Bearer ${apiKey.value}`);
    return request;
  },
};

export const api = createClient<paths>({
  baseUrl: addressOf('.').replace(/\/$/, ''),
  fetch: (request: Request) => send(request),
});
api.use(attachKey);

/** Returns the data of an answer. Rejects with a `Problem` otherwise. */
export async function data<T>(answer: Promise<{ data?: unknown; response: Response }>): Promise<T> {
  const { data: found, response } = await answer;
  if (!response.ok) throw await problemOf(response);
  return found as T;
}

/** Fetches anything else of this server with the key. Rejects with a `Problem`. */
export async function fetchFrom(path: string, options: RequestInit = {}): Promise<Response> {
  const request = new Request(addressOf(path), options);
  if (apiKey.value) request.headers.set('Authorization', `Bearer ${apiKey.value}`);
  const response = await send(request);
  if (!response.ok) throw await problemOf(response);
  return response;
}

/** Sends a request, and again with another key where the server asks for one. */
async function send(request: Request): Promise<Response> {
  const again = request.clone();
  let response: Response;
  try {
    response = await fetch(request);
  } catch (error) {
    if (error instanceof DOMException && error.name === 'AbortError') throw error;
    throw new Problem(0, 'unreachable', 'The server can’t be reached.');
  }
  if (response.status !== 401) return response;
  const used = request.headers.get('Authorization');
  const key = await askForKey(used !== null, (await problemOf(response)).message);
  if (key === null) return response;
  again.headers.set('Authorization', `Bearer ${key}`);
  return send(again);
}
