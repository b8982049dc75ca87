/** Name, notice, and what is chosen once: theme, language, key. */
import { Command, Keyboard, KeyRound, Moon, Sun, SunMoon } from 'lucide-preact';
import { helpOpen, keyName, paletteOpen } from '../commands/commands.ts';
import icon from '../icon.svg';
import { route } from '../route.ts';
import { type Language, language, type Theme, theme } from '../state/preferences.ts';
import { reading } from '../state/reading.ts';
import { isUnread } from '../state/server.ts';
import { apiKey, forgetKey } from '../state/session.ts';
import { newestFirst } from '../state/worklist.ts';
import { words } from '../words/words.ts';

const NEXT: Record<Theme, Theme> = { system: 'dark', dark: 'light', light: 'system' };
const ICONS = { system: SunMoon, dark: Moon, light: Sun };

export function Header() {
  const text = words.value;
  const ThemeIcon = ICONS[theme.value];
  // By the report that is open, and else by the newest: the banner is there as long as that model reads.
  const newest = newestFirst.value.find((job) => job.summary);
  const isDemo = reading.value?.job?.report?.model.demo ?? newest?.summary?.demo ?? false;
  return (
    <>
      <header class="top">
        <a
          class="skip"
          href="#/"
          onClick={(event) => {
            event.preventDefault();
            document.querySelector<HTMLElement>('.toolbar button')?.focus();
          }}
        >
          {text.skip}
        </a>
        <img src={icon} alt="" width="26" height="26" />
        <h1>{text.name}</h1>
        <p class="notice">{text.notice}</p>
        <span class="space" />
        <nav aria-label={text.name}>
          <a href="#/" aria-current={route.value.page === 'reading' ? 'page' : undefined}>
            {text.reading}
          </a>
          <a href="#/operations" aria-current={route.value.page === 'operations' ? 'page' : undefined}>
            {text.operations}
          </a>
          <a href="docs">{text.api}</a>
        </nav>
        <button
          type="button"
          class="icon desk"
          aria-label={text.commands.palette}
          title={`${text.commands.palette} (${keyName('Mod+k')})`}
          onClick={() => {
            paletteOpen.value = true;
          }}
        >
          <Command size={17} aria-hidden="true" />
        </button>
        <button
          type="button"
          class="icon desk"
          aria-label={text.commands.help}
          title={`${text.commands.help} (?)`}
          onClick={() => {
            helpOpen.value = true;
          }}
        >
          <Keyboard size={17} aria-hidden="true" />
        </button>
        <select
          aria-label={text.language}
          value={language.value}
          onChange={(event) => {
            language.value = event.currentTarget.value as Language;
          }}
        >
          <option value="en">EN</option>
          <option value="es">ES</option>
        </select>
        <button
          type="button"
          class="icon"
          aria-label={`${text.theme}: ${text.themes[theme.value]}`}
          title={`${text.theme}: ${text.themes[theme.value]}`}
          onClick={() => {
            theme.value = NEXT[theme.value];
          }}
        >
          <ThemeIcon size={17} aria-hidden="true" />
        </button>
        {apiKey.value && (
          <button
            type="button"
            class="icon"
            aria-label={text.key.forget}
            title={text.key.forget}
            onClick={forgetKey}
          >
            <KeyRound size={17} aria-hidden="true" />
          </button>
        )}
      </header>
      {isUnread.value && <aside class="banner unread">{text.noWorker}</aside>}
      {isDemo && <aside class="banner">{text.demoBanner}</aside>}
    </>
  );
}
