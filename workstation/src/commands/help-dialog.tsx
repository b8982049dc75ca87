/** Every key, in the order of the page. */
import { Dialog } from '../parts/dialog.tsx';
import { words } from '../words/words.ts';
import { commands, helpOpen, keyName } from './commands.ts';

export function HelpDialog() {
  const text = words.value.commands;
  const close = () => {
    helpOpen.value = false;
  };
  return (
    <Dialog title={text.help} open={helpOpen.value} onClose={close} class="wide">
      <p class="muted">{text.helpAbout}</p>
      <dl class="keys">
        {commands.value.map((one) => (
          <div key={one.id}>
            <dt>
              <kbd>{keyName(one.key)}</kbd>
            </dt>
            <dd>{one.name()}</dd>
          </div>
        ))}
      </dl>
      <div class="buttons end">
        <button type="button" onClick={close}>
          {words.value.close}
        </button>
      </div>
    </Dialog>
  );
}
