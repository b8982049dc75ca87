/** A section's text, whose sentences are linked to the boxes that they speak of. */
import { chosen, hovered, type Location } from '../state/reading.ts';

interface Props {
  text: string;
  locations: readonly Location[];
  testid: string;
}

export function LinkedProse({ text, locations, testid }: Props) {
  const active = hovered.value ?? chosen.value;
  return (
    <p data-testid={testid}>
      {sentences(text).map((sentence, number) => {
        const spoken = spokenOf(sentence, locations);
        const isActive = active !== null && spoken.includes(active);
        const first = spoken[0];
        if (first === undefined) return <span key={`${number}-${sentence}`}>{sentence} </span>;
        return (
          <span
            key={`${number}-${sentence}`}
            class={`linked ${isActive ? 'active' : ''}`}
            role="button"
            tabIndex={0}
            aria-pressed={isActive}
            onMouseEnter={() => {
              hovered.value = first;
            }}
            onMouseLeave={() => {
              hovered.value = null;
            }}
            onFocus={() => {
              hovered.value = first;
            }}
            onBlur={() => {
              hovered.value = null;
            }}
            onClick={() => {
              chosen.value = first;
            }}
            onKeyDown={(event) => {
              if (event.key === 'Enter' || event.key === ' ') {
                event.preventDefault();
                chosen.value = first;
              }
            }}
          >
            {sentence}{' '}
          </span>
        );
      })}
    </p>
  );
}

/** Returns the sentences of a text: the browser knows that 1.8 cm ends none. */
export function sentences(text: string): string[] {
  const pieces = new Intl.Segmenter('en', { granularity: 'sentence' }).segment(text);
  return [...pieces].map(({ segment }) => segment.trim()).filter(Boolean);
}

/** Returns the locations that a sentence names: by label, and by side where it says one. */
export function spokenOf(sentence: string, locations: readonly Location[]): number[] {
  const text = ` ${sentence.toLowerCase()} `;
  const says = (word: string) => new RegExp(`\\b${word}\\b`).test(text);
  const sides = (['left', 'right'] as const).filter(says);
  return locations.flatMap(({ label, laterality }, index) => {
    const named = [label.split(' '), ...(OTHERWISE[label] ?? [])].some((all) =>
      all.every((word) => text.includes(word)),
    );
    const sided = !laterality || sides.length === 0 || sides.includes(laterality);
    return named && sided ? [index] : [];
  });
}

/** The demo model writes *the heart is enlarged* for cardiomegaly. */
const OTHERWISE: Record<string, string[][]> = { cardiomegaly: [['heart', 'enlarged']] };
