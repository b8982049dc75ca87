/** A file that was chosen and is not with the server yet. */
import { signal } from '@preact/signals';

export const chosenFile = signal<File | null>(null);
