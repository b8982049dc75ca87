/** What went wrong, and what to do. */
import { CircleAlert } from 'lucide-preact';
import type { ComponentChildren } from 'preact';

export function ErrorLine({ children }: { children: ComponentChildren }) {
  return (
    <p class="error" role="alert">
      <CircleAlert size={16} aria-hidden="true" /> <span>{children}</span>
    </p>
  );
}
