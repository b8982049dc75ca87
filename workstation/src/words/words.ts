/** The texts in the reader's language. */
import { computed } from '@preact/signals';
import { language } from '../state/preferences.ts';
import { en, type Words } from './en.ts';
import { es } from './es.ts';

const LANGUAGES: Record<'en' | 'es', Words> = { en, es };

export const words = computed<Words>(() => LANGUAGES[language.value]);
