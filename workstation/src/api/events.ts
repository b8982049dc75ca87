/** The events of one job: its states, and its report's text while it is written. */
import { EventSourceParserStream } from 'eventsource-parser/stream';
import type { Job } from '../state/worklist.ts';
import { fetchFrom } from './client.ts';

export interface JobListener {
  onState(state: Job['state']): void;
  onText(text: string): void;
}

const MAX_WAIT_MS = 15_000;

/**
 * Follows a job to its end, through connections that break off. Returns the ended job.
 *
 * @param signal stops it; the promise then rejects with an AbortError.
 * @param onConnection is told whether the stream is open.
 */
export async function followJob(
  id: string,
  listener: JobListener,
  signal: AbortSignal,
  onConnection: (open: boolean) => void,
): Promise<Job> {
  let text = '';
  let lastEvent = '';
  for (let wait = 500; ; wait = Math.min(wait * 2, MAX_WAIT_MS)) {
    try {
      const headers: Record<string, string> = lastEvent ? { 'Last-Event-ID': lastEvent } : {};
      const response = await fetchFrom(`v1/jobs/${id}/events`, { headers, signal });
      onConnection(true);
      const events = response.body
        ?.pipeThrough(new TextDecoderStream())
        .pipeThrough(new EventSourceParserStream());
      const reader = events?.getReader();
      for (;;) {
        const next = await reader?.read();
        if (!next || next.done) break;
        wait = 500;
        const { event, data, id: at } = next.value;
        if (at) lastEvent = at;
        const value = JSON.parse(data);
        if (event === 'state') listener.onState(value.state);
        else if (event === 'text') {
          text = text.slice(0, value.offset) + value.text;
          listener.onText(text);
        } else if (event === 'ended') return value as Job;
      }
    } catch (error) {
      if (signal.aborted || (error as { status?: number }).status === 404) throw error;
    }
    onConnection(false);
    await new Promise((resume) => setTimeout(resume, wait));
    signal.throwIfAborted();
  }
}
