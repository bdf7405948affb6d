// What went wrong, shown until it is dismissed or has gone well after all; and what went well, for a
// moment.

import { Problem } from './api.js';
import { byId, element } from './element.js';
import { t } from './texts.js';

const MOMENT_MS = 4000;

/** Show a problem in the place of the last one of its kind; `retry`, where given, does the very same
 * again. */
export function showProblem(what, problem, retry, kind = what) {
  const again = problem.retryable && retry;
  clear(kind);
  const notice = element('div', { class: 'notice', role: 'alert', data: { kind } },
    element('p', {},
      element('b', {}, `${what}: ${problem.title}.`), ' ', element('span', {}, problem.detail), ' ',
      problem.requestId && element('small', {}, t('Request {id}', { id: problem.requestId }))),
    again && element('button', { type: 'button', onclick: () => { notice.remove(); retry(); } }, t('Try again')),
    element('button', { type: 'button', onclick: () => notice.remove() }, t('Dismiss')));
  byId('notices').prepend(notice);
}

/** What of this kind went wrong is well again. */
export function clear(kind) {
  for (const notice of byId('notices').querySelectorAll('.notice')) if (notice.dataset.kind === kind) notice.remove();
}

/** Say that something is done. */
export function showDone(text) {
  const notice = element('div', { class: 'notice done', role: 'status' }, element('p', {}, text));
  byId('notices').prepend(notice);
  setTimeout(() => notice.remove(), MOMENT_MS);
}

/** Do something; what goes wrong is shown, and can be tried again. Whether it went well. */
export async function attempt(what, action, retry = null) {
  try {
    await action();
    clear(what);
    return true;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    showProblem(what, error, retry ?? (() => attempt(what, action)));
    return false;
  }
}
