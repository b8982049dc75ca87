/** Values as people read them. */
import { language } from '../state/preferences.ts';
import { words } from '../words/words.ts';

/** Returns how long ago a moment is, such as `5 min`. */
export function age(moment: string, now: number = Date.now()): string {
  return span(Math.max(0, (now - Date.parse(moment)) / 1000));
}

/** Returns a number of seconds in its largest unit. */
export function span(seconds: number): string {
  const units: [Intl.NumberFormatOptions['unit'], number][] = [
    ['day', 86_400],
    ['hour', 3_600],
    ['minute', 60],
    ['second', 1],
  ];
  const [unit, size] = units.find(([, each]) => seconds >= each) ?? ['second', 1];
  return new Intl.NumberFormat(language.value, {
    style: 'unit',
    unit: unit as string,
    unitDisplay: 'short',
  }).format(Math.round(seconds / size));
}

/** Returns date and time in the reader's way. */
export const moment = (text: string): string =>
  new Date(text).toLocaleString(language.value, { dateStyle: 'medium', timeStyle: 'short' });

/** Returns a finding with its side. */
export const titleOf = ({ label, laterality }: { label: string; laterality?: 'left' | 'right' | null }): string =>
  laterality ? `${label}, ${words.value.report.side[laterality]}` : label;

/** Returns a probability in percent. */
export const percent = (probability: number): string => `${Math.round(probability * 100)} %`;
