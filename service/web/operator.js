// Who labels, where nobody logs in: asked once, with the names that were told here before.

import { element } from './element.js';
import { t } from './texts.js';

const PLACE = 'kizu.operators';
const MOST = 6;

/** Ask for a name; null where it was called off. */
export function askName() {
  const names = JSON.parse(localStorage.getItem(PLACE) ?? '[]');
  const name = element('input', { required: true, maxLength: 200, autocomplete: 'off', 'aria-label': t('your name') });
  const dialog = element('dialog', {},
    element('form', { method: 'dialog' },
      element('h2', {}, t('Who are you?')),
      element('p', { class: 'quiet' }, t('Your name is kept with what you decide.')),
      names.length > 0 && element('p', { class: 'names' }, names.map((one) => element('button', {
        type: 'button', onclick: () => { name.value = one; dialog.close('done'); },
      }, one))),
      element('label', {}, t('your name'), name),
      element('p', { class: 'buttons' },
        element('button', { type: 'button', onclick: () => dialog.close('') }, t('Cancel')),
        element('button', { value: 'done', class: 'primary' }, t('Go on')))));
  document.body.append(dialog);
  dialog.showModal();
  name.focus();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => {
      dialog.remove();
      const told = dialog.returnValue === 'done' ? name.value.trim() : '';
      if (told) localStorage.setItem(PLACE, JSON.stringify([told, ...names.filter((one) => one !== told)].slice(0, MOST)));
      resolve(told || null);
    });
  });
}
