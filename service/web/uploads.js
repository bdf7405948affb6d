// Images from this computer to the service, one after the other, so that the line goes first.

import { inspect, newKey, Problem } from './api.js';
import { showProblem } from './notices.js';
import { byId, setText } from './words.js';

const waiting = [];
let busy = false;
let inspected = () => {};

/** Call `then` with each result and what `started` gave when its images were chosen. */
export function onInspected(then, started) {
  inspected = then;
  const choose = (files) => send(files, started());
  byId('files').addEventListener('change', ({ target }) => {
    choose([...target.files]);
    target.value = ''; // or the same file could not be chosen twice
  });
  listenToDrops(choose);
}

function listenToDrops(choose) {
  const drop = byId('drop');
  // Everywhere: an image that misses the zone would replace the page.
  document.addEventListener('dragover', (event) => {
    event.preventDefault();
    drop.classList.add('over');
  });
  document.addEventListener('dragleave', ({ relatedTarget }) => {
    if (!relatedTarget) drop.classList.remove('over');
  });
  document.addEventListener('drop', (event) => {
    event.preventDefault();
    drop.classList.remove('over');
    choose([...event.dataTransfer.files]);
  });
}

function send(files, context) {
  const asked = { recipe: byId('recipe').value, partId: byId('part').value.trim() };
  byId('part').value = ''; // images chosen together show one part; the next ones another
  for (const file of files) waiting.push({ file, context, asked: { ...asked, key: newKey() } });
  if (!busy) work();
}

async function work() {
  busy = true;
  while (waiting.length) {
    const job = waiting.shift();
    const more = waiting.length ? `, ${waiting.length} more` : '';
    setText(byId('progress'), `Inspecting ${job.file.name}${more} …`);
    await carryOut(job);
  }
  busy = false;
  setText(byId('progress'), '');
}

async function carryOut(job) {
  try {
    inspected(await inspect(job.file, job.asked), job.context);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    showProblem(job.file.name, error, () => {
      waiting.push(job);
      if (!busy) work();
    });
  }
}
