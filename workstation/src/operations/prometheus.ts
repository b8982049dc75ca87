/** Values of the gateway's Prometheus metrics (text format 0.0.4): of gauges and counters, all that is shown here. */

export interface Sample {
  labels: Record<string, string>;
  value: number;
}

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;

/** Returns the samples of each metric by its name. */
export function samplesOf(text: string): Map<string, Sample[]> {
  const found = new Map<string, Sample[]>();
  for (const line of text.split('\n')) {
    const [, name, labels = '', value = ''] = LINE.exec(line) ?? [];
    if (!name) continue;
    const named = Object.fromEntries([...labels.matchAll(LABEL)].map(([, key = '', given = '']) => [key, given]));
    found.set(name, [...(found.get(name) ?? []), { labels: named, value: Number(value) }]);
  }
  return found;
}
