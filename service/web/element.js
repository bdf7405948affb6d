// Elements, made in one expression: element('p', { class: 'quiet' }, 'text', child).

const SVG = new Set(['svg', 'g', 'rect', 'path', 'line', 'text', 'circle', 'polygon', 'polyline']);

/** An HTML or SVG element. `on…` listens, `data` fills the dataset, null leaves an attribute out. */
export function element(name, attributes = {}, ...children) {
  const made = SVG.has(name)
    ? document.createElementNS('http://www.w3.org/2000/svg', name)
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) set(made, key, value);
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

function set(made, key, value) {
  if (value === null || value === undefined || value === false) return;
  if (key.startsWith('on')) made.addEventListener(key.slice(2), value);
  else if (key === 'data') Object.assign(made.dataset, value);
  else if (key in made && !(made instanceof SVGElement) && key !== 'list' && key !== 'form') made[key] = value;
  else made.setAttribute(key === 'class' || key === 'className' ? 'class' : key, value === true ? '' : value);
}

export const byId = (id) => document.getElementById(id);

/** Set a text only where it changes, so that status regions are read out once. */
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/** Put these in the place of all that is in `target`. */
export function fill(target, ...children) {
  target.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
}

/** The word of a verdict; its shape and colour come from the style sheet. */
export function verdictMark(verdict, text, attributes = {}) {
  return element('strong', { class: 'verdict', data: { verdict }, ...attributes }, text);
}
