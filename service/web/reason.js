// Who decides, and why: asked before anything is changed that others must be able to follow.

import { element } from './element.js';
import { t } from './texts.js';

/** Ask for a reason. Gives `{by, reason}`, or null where it was called off. */
export async function askReason(shell, title, text) {
  const by = await shell.askOperator();
  if (!by) return null;
  const reason = element('input', { required: true, pattern: '.*\\S.*', maxLength: 200, autocomplete: 'off', 'aria-label': t('Reason') });
  const dialog = element('dialog', {},
    element('form', { method: 'dialog' },
      element('h2', {}, title),
      text && element('p', {}, text),
      element('label', {}, t('Reason'), reason),
      element('p', { class: 'buttons' },
        element('button', { value: 'cancel', type: 'button', onclick: () => dialog.close('cancel') }, t('Cancel')),
        element('button', { value: 'done', class: 'primary' }, title))));
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => {
      dialog.remove();
      resolve(dialog.returnValue === 'done' ? { by, reason: reason.value.trim() } : null);
    });
  });
}
