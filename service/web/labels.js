// Labels on their way to the service. None is lost: each stays here, on this computer's disk, until
// the service has said that it is on its own.

import { giveFeedback, newKey, Problem } from './api.js';
import { clear, showProblem } from './notices.js';
import { t } from './texts.js';

const PLACE = 'kizu.labels';
// The kind of notice that says that some wait.
export const UNSENT = 'unsent';
const sending = new Map();

/** Send a label. What is not answered is sent again, under the same key, until it is. */
export function send(label) {
  const job = { label, key: newKey() };
  store([...waiting(), job]);
  return carryOut(job);
}

/** Send what still waits, from before a lost connection or a reload. */
export function resend() {
  for (const job of waiting()) if (!sending.has(job.key)) carryOut(job).catch(() => {});
}

/** How many labels the service has not acknowledged yet. */
export const unsent = () => waiting().length;

function carryOut(job) {
  const answer = giveFeedback(job.label, job.key).then((stored) => {
    forget(job);
    return stored;
  }, (error) => {
    // What will never be accepted is shown, not sent for ever.
    if (error instanceof Problem && !error.retryable) {
      forget(job);
      showProblem(t('Label {verdict}', { verdict: t(job.label.verdict) }), error);
    }
    throw error;
  }).finally(() => sending.delete(job.key));
  sending.set(job.key, answer);
  return answer;
}

function waiting() {
  return JSON.parse(localStorage.getItem(PLACE) ?? '[]');
}

function forget(job) {
  const left = waiting().filter((other) => other.key !== job.key);
  store(left);
  if (!left.length) clear(UNSENT);
}

function store(jobs) {
  localStorage.setItem(PLACE, JSON.stringify(jobs));
}
