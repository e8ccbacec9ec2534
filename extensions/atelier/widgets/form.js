/** What all forms share: elements, questions to the kernel, and the truth about a kernel that does not answer. */

const SVG = 'http://www.w3.org/2000/svg';
const BUSY_AFTER_MS = 1500;

const ICONS = {
  folder: 'M2 4.5v8h12v-7H8L6.5 3.5H2z',
  file: 'M4 2h5l3 3v9H4zM9 2v3h3',
  table: 'M2.5 3h11v10h-11zM2.5 6.3h11M2.5 9.6h11M6.5 3v10',
  image: 'M2.5 3h11v10h-11zM2.5 11l3.2-3.4 2.4 2.4 2-1.8 3.4 3M10.6 5.6h.1',
  notebook: 'M4.5 2h8v12h-8zM2.8 4.5h1.7M2.8 8h1.7M2.8 11.5h1.7M7 5h3.5',
  lock: 'M4 7h8v6.5H4zM5.5 7V5a2.5 2.5 0 0 1 5 0v2',
  link: 'M6.5 9.5l3-3M7 5l1.5-1.5a2.5 2.5 0 0 1 3.5 3.5L10.5 8.5M9 11l-1.5 1.5A2.5 2.5 0 0 1 4 9l1.5-1.5',
  copy: 'M5.5 5.5h7.5v8H5.5zM3 10.5v-8h7.5',
  refresh: 'M13 8a5 5 0 1 1-1.6-3.7M13 2.5V5h-2.5',
  check: 'M3 8.5l3.2 3.2L13 4.8',
  cross: 'M4 4l8 8M12 4l-8 8',
  dot: 'M8 7.2a.8.8 0 1 0 0 1.6.8.8 0 0 0 0-1.6',
  download: 'M8 2.5v7.5M5 7.2L8 10.2l3-3M3 13h10',
  run: 'M5 3l8 5-8 5z'
};

/** An element with properties, attributes (`aria-…`, `data-…`, `role`, `for`), listeners (`on…`) and children. */
function h(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else if (key === 'class') node.className = value;
    else if (key in node && !/^(aria-|data-|role|for|style|colspan)/.test(key)) node[key] = value;
    else node.setAttribute(key, value === true ? '' : String(value));
  }
  node.append(...children.flat(Infinity).filter(child => child !== null && child !== undefined && child !== false));
  return node;
}

function icon(name, extra = '') {
  const svg = document.createElementNS(SVG, 'svg');
  const path = document.createElementNS(SVG, 'path');
  svg.setAttribute('viewBox', '0 0 16 16');
  svg.setAttribute('class', `af-icon ${extra}`);
  svg.setAttribute('aria-hidden', 'true');
  path.setAttribute('d', ICONS[name] ?? ICONS.file);
  svg.append(path);
  return svg;
}

/** A size as everywhere in Atelier: 1536 is 1.5 KiB. */
function bytes(count) {
  if (count === null || count === undefined) return '';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let size = count;
  let unit = 0;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${size >= 100 || Number.isInteger(size) ? size.toFixed(0) : size.toFixed(1)} ${units[unit]}`;
}

function number(value) {
  return Number(value).toLocaleString('en');
}

/** A moment as people say it: the time today, else the day. */
function moment(iso) {
  if (!iso) return '';
  const then = new Date(iso);
  const today = new Date().toDateString() === then.toDateString();
  const pad = part => String(part).padStart(2, '0');
  return today
    ? `${pad(then.getHours())}:${pad(then.getMinutes())}`
    : `${then.getFullYear()}-${pad(then.getMonth() + 1)}-${pad(then.getDate())}`;
}

/** A button that copies a text, and says so; where the page may not use the clipboard the text is selected instead. */
function copyButton(label, text, { bare = false } = {}) {
  const words = h('span', {}, label);
  const button = h('button', { type: 'button', class: `af-button ${bare ? 'af-bare' : ''}` }, icon('copy'), words);
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(text);
      words.textContent = 'Copied';
    } catch {
      window.prompt('Copy this text:', text);
      return;
    }
    setTimeout(() => (words.textContent = label), 1500);
  });
  return button;
}

/** A message with its hint; `tone` is good, warn or bad. */
function notice(tone, title, hint = '', ...more) {
  return h(
    'div',
    { class: `af-notice af-notice-${tone}`, role: tone === 'bad' ? 'alert' : 'status' },
    h('div', { class: 'af-notice-text' }, h('strong', {}, title), hint ? h('div', {}, hint) : null),
    more
  );
}

function problem(error, ...more) {
  return notice('bad', error.message, error.hint, h('code', { class: 'af-code' }, error.code), more);
}

function loading(text) {
  return h('div', { class: 'af-loading', role: 'status' }, h('span', { class: 'af-spinner', 'aria-hidden': 'true' }), text);
}

/**
 * The frame of a form: a head, a body that is disabled when the kernel is gone, and `ask` for questions to the kernel.
 * Call `close` when the form is taken off the page.
 */
function openForm({ model, el }, label) {
  const body = h('fieldset', { class: 'af-body' }, h('legend', { class: 'af-hidden' }, label));
  const state = h('div', { class: 'af-state', 'aria-live': 'polite' });
  const root = h('div', { class: 'af-root', role: 'group', 'aria-label': label }, state, body);
  const waiting = new Map();
  let next = 0;
  let gone = false;
  let busyTimer = null;
  el.append(root);

  const onMessage = message => {
    const pending = waiting.get(message?.id);
    if (!pending) return;
    waiting.delete(message.id);
    calm();
    if (message.error) pending.reject(Object.assign(new Error(message.error.message), message.error));
    else pending.resolve(message.answer);
  };

  const calm = () => {
    clearTimeout(busyTimer);
    busyTimer = null;
    if (!gone) state.replaceChildren();
    if (waiting.size) watch();
  };

  const watch = () => {
    busyTimer ??= setTimeout(() => {
      if (!gone) {
        state.replaceChildren(
          notice('warn', 'Still waiting for the kernel.', 'It may be busy with a running cell. After a restart, run this cell again.')
        );
      }
    }, BUSY_AFTER_MS);
  };

  const onGone = () => {
    gone = true;
    clearTimeout(busyTimer);
    body.disabled = true;
    root.classList.add('af-gone');
    state.replaceChildren(notice('warn', 'The kernel behind this form is gone.', 'Run this cell again to use it.'));
    for (const { reject } of waiting.values()) reject(Object.assign(new Error('The kernel is gone.'), { code: 'kernel_gone', hint: '' }));
    waiting.clear();
  };

  const ask = (name, given = {}, { patient = false } = {}) =>
    new Promise((resolve, reject) => {
      if (gone) {
        reject(Object.assign(new Error('The kernel is gone.'), { code: 'kernel_gone', hint: '' }));
        return;
      }
      next += 1;
      const id = `${Date.now().toString(36)}-${next}`;
      waiting.set(id, { resolve, reject });
      if (!patient) watch();
      model.send({ id, ask: name, with: given });
    });

  /**
   * Put a result below the form as an output of its cell, which is saved and outlives the kernel. The labextension does it where
   * there is one (it cancels the event, and true is returned); else the kernel updates what it has displayed.
   */
  const show = async bundle => {
    const event = new CustomEvent('atelier:show', { bubbles: true, cancelable: true, detail: { bundle } });
    const isShown = !root.dispatchEvent(event);
    if (!isShown) await ask('show');
    return isShown;
  };

  model.on('msg:custom', onMessage);
  model.on('comm_live_update', onGone);
  root.addEventListener('atelier:kernel-gone', onGone); // from the labextension: a shutdown is no update
  return {
    root,
    body,
    ask,
    show,
    close() {
      clearTimeout(busyTimer);
      model.off('msg:custom', onMessage);
      model.off('comm_live_update', onGone);
      root.remove();
    }
  };
}
