// Who is logged in, and the dialog that asks. Whatever was under way goes on afterwards.

import { logIn, logOut, Problem, readSession, watchSession } from './api.js';
import { element, setText } from './element.js';
import { t } from './texts.js';

const REFUSED = {
  forbidden: 'This account is not known here: ask for it to be added.',
  'provider-failure': 'The identity provider does not answer.',
};
const ROLES = ['camera', 'operator', 'engineer', 'admin'];

/** As the service says: with `closed`, one has to be known. */
export const session = { closed: false, name: null, role: null, provider: null };

/** Whether who is logged in may do what takes a role; where the service stands open, all may. */
export const may = (role) => ROLES.indexOf(session.role) >= ROLES.indexOf(role);

let asking = null;
let changed = () => {};

/** Find out who is logged in, ask where somebody has to be; `onChange` is called at every change. */
export async function begin(onChange) {
  changed = onChange;
  watchSession(ask, know);
  await readSession();
  if (session.closed && !session.name) await ask();
}

/** End the session of this browser, and ask for the next one. */
export async function leave() {
  await logOut();
  if (session.closed) await ask();
}

function know({ closed, name, role, provider }) {
  Object.assign(session, { closed, name, role, provider });
  changed();
}

function ask() {
  asking ??= dialog().finally(() => { asking = null; });
  return asking;
}

function dialog() {
  const name = element('input', { required: true, maxLength: 200, autocomplete: 'username', 'aria-label': t('Name') });
  const password = element('input', { required: true, type: 'password', autocomplete: 'current-password', 'aria-label': t('Password') });
  const wrong = element('p', { class: 'wrong', role: 'alert' });
  name.value = session.name ?? '';
  const refused = new URLSearchParams(location.search).get('refused'); // by who came back from the provider
  if (refused) {
    setText(wrong, REFUSED[refused] ? t(REFUSED[refused]) : t('The log-in failed.'));
    history.replaceState(null, '', location.pathname + location.hash);
  }
  return new Promise((resolve) => {
    const box = element('dialog', { class: 'log-in', oncancel: (event) => event.preventDefault() },
      element('form', { method: 'dialog', onsubmit: async (event) => {
        event.preventDefault();
        setText(wrong, '');
        try {
          await logIn(name.value.trim(), password.value);
        } catch (error) {
          if (!(error instanceof Problem)) throw error;
          setText(wrong, error.detail);
          password.select();
          return;
        }
        box.remove();
        resolve();
      } },
        element('h2', {}, t('Log in')),
        element('p', { class: 'quiet' }, t('What you were doing goes on afterwards.')),
        element('label', {}, t('Name'), name),
        element('label', {}, t('Password'), password),
        wrong,
        session.provider && element('a', { class: 'button', href: session.provider }, t('Log in with the account of the plant')),
        element('p', { class: 'buttons' }, element('button', { class: 'primary' }, t('Log in')))));
    document.body.append(box);
    box.showModal();
    (name.value ? password : name).focus();
  });
}
