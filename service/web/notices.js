// What went wrong, shown until it is dismissed.

import { byId } from './words.js';

/** Show a problem; `retry`, where given, sends the very same request again. */
export function showProblem(what, problem, retry) {
  const notice = byId('notice').content.firstElementChild.cloneNode(true);
  const part = (selector) => notice.querySelector(selector);
  part('.title').textContent = `${what}: ${problem.title}.`;
  part('.detail').textContent = problem.detail;
  part('small').textContent = problem.requestId && `Request ${problem.requestId}`;
  part('.retry').hidden = !(problem.retryable && retry);
  part('.retry').addEventListener('click', () => {
    notice.remove();
    retry();
  });
  part('.dismiss').addEventListener('click', () => notice.remove());
  byId('notices').prepend(notice);
}
