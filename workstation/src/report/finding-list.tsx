/** The legend: every finding with its colour and dash, its probability, and the switch of its box. */
import { Check, Eye, EyeOff, X } from 'lucide-preact';
import { useEffect, useRef } from 'preact/hooks';
import { percent, titleOf } from '../parts/text.ts';
import { type DraftLocation, draft, editing, judge } from '../state/feedback.ts';
import { chosen, hiddenBoxes, hovered, isProbable, type Location, locations } from '../state/reading.ts';
import { words } from '../words/words.ts';
import { dashOf } from './dashes.ts';

export function FindingList() {
  return (
    <ul class="finding-list" data-testid="locations">
      {locations.value.map((location, index) => (
        <Finding key={index} location={location} index={index} />
      ))}
    </ul>
  );
}

function Finding({ location, index }: { location: Location; index: number }) {
  const text = words.value.report;
  const feedback = words.value.feedback;
  const line = useRef<HTMLLIElement>(null);
  const title = titleOf(location);
  const hidden = hiddenBoxes.value.has(index);
  const active = hovered.value === index || chosen.value === index;
  const said = draft.value?.locations.find((one: DraftLocation) => one.of === index)?.verdict ?? null;
  useEffect(() => {
    if (chosen.value === index) line.current?.scrollIntoView({ block: 'nearest' });
  }, [chosen.value]);
  const point = (at: number | null) => {
    hovered.value = at;
  };
  return (
    <li
      ref={line}
      class={`finding ${active ? 'active' : ''} ${hidden || !isProbable(location) ? 'dim' : ''} ${said ?? ''}`}
      onMouseEnter={() => point(index)}
      onMouseLeave={() => point(null)}
    >
      <button
        type="button"
        class="name"
        aria-pressed={chosen.value === index}
        onFocus={() => point(index)}
        onBlur={() => point(null)}
        onClick={() => {
          chosen.value = chosen.value === index ? null : index;
        }}
      >
        <Swatch colour={location.colour} index={index} />
        <span class="title">
          {title}
          {said && said !== 'agreed' && <em> · {feedback.verdicts[said]}</em>}
        </span>
        {location.probability != null && (
          <span class="probability" title={text.probability}>
            {percent(location.probability)}
          </span>
        )}
      </button>
      {!editing.value && (
        <>
          <button
            type="button"
            class="icon agree"
            aria-pressed={said === 'agreed'}
            aria-label={feedback.agreeWith(title)}
            title={feedback.agreeWith(title)}
            onClick={() => judge(String(index), 'agreed')}
          >
            <Check size={15} aria-hidden="true" />
          </button>
          <button
            type="button"
            class="icon reject"
            aria-pressed={said === 'rejected'}
            aria-label={feedback.rejectOf(title)}
            title={feedback.rejectOf(title)}
            onClick={() => judge(String(index), 'rejected')}
          >
            <X size={15} aria-hidden="true" />
          </button>
        </>
      )}
      <button
        type="button"
        class="icon"
        aria-pressed={!hidden}
        aria-label={text.show(title)}
        title={text.show(title)}
        onClick={() => {
          const next = new Set(hiddenBoxes.value);
          if (!next.delete(index)) next.add(index);
          hiddenBoxes.value = next;
        }}
      >
        {hidden ? <EyeOff size={15} aria-hidden="true" /> : <Eye size={15} aria-hidden="true" />}
      </button>
      {location.evidence && <p class="evidence">{location.evidence}</p>}
    </li>
  );
}

/** Number, colour and dash of a finding's box. */
export function Swatch({ colour, index }: { colour: string; index: number }) {
  return (
    <svg class="swatch" viewBox="0 0 26 20" width="26" height="20" aria-hidden="true">
      <rect
        x="1.5"
        y="1.5"
        width="23"
        height="17"
        rx="2"
        fill="none"
        stroke={colour}
        stroke-width="3"
        stroke-dasharray={dashOf(index)}
      />
      <text x="13" y="14" text-anchor="middle">
        {index + 1}
      </text>
    </svg>
  );
}
