// Images from this computer to the service, one after the other, so that the line goes first.

import { inspect, newKey, Problem } from './api.js';
import { element, setText } from './element.js';
import { showProblem } from './notices.js';
import { t } from './texts.js';

const TYPES = 'image/jpeg,image/png,image/bmp,image/tiff,image/webp';

/** A place to drop images on, or to choose them; `recipe()` says which one they are of. */
export function uploads(recipe) {
  const waiting = [];
  let busy = false;
  const part = element('input', { maxLength: 200, placeholder: t('optional'), autocomplete: 'off' });
  const progress = element('p', { class: 'progress', role: 'status' });
  const files = element('input', { type: 'file', multiple: true, accept: TYPES, onchange: ({ target }) => {
    send([...target.files]);
    target.value = ''; // or the same file could not be chosen twice
  } });
  const drop = element('div', { class: 'drop' },
    element('p', {}, element('label', { class: 'button' }, files, t('Choose images')), ' ', t('or drop them here')),
    element('label', {}, `${t('Part')} `, part),
    progress);

  function send(chosen) {
    const asked = { recipe: recipe(), partId: part.value.trim() };
    part.value = ''; // images chosen together show one part; the next ones another
    for (const file of chosen) waiting.push({ file, asked: { ...asked, key: newKey() } });
    if (!busy) work();
  }

  async function work() {
    busy = true;
    while (waiting.length) {
      const job = waiting.shift();
      const more = waiting.length ? t(', {n} more', { n: waiting.length }) : '';
      setText(progress, t('Inspecting {name}{more} …', { name: job.file.name, more }));
      await carryOut(job);
    }
    busy = false;
    setText(progress, '');
  }

  async function carryOut(job) {
    try {
      await inspect(job.file, job.asked);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      showProblem(job.file.name, error, () => {
        waiting.push(job);
        if (!busy) work();
      });
    }
  }

  // Everywhere: an image that misses the zone would replace the page.
  const onDrag = {
    dragover: (event) => {
      event.preventDefault();
      drop.classList.add('over');
    },
    dragleave: ({ relatedTarget }) => relatedTarget ?? drop.classList.remove('over'),
    drop: (event) => {
      event.preventDefault();
      drop.classList.remove('over');
      send([...event.dataTransfer.files]);
    },
  };
  for (const [name, listen] of Object.entries(onDrag)) document.addEventListener(name, listen);
  const leave = () => Object.entries(onDrag).forEach(([name, listen]) => document.removeEventListener(name, listen));
  return { drop, leave };
}
