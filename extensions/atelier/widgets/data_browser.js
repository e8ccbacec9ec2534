/** The data browser: folders on the left, a look at the picked file on the right. */

const KIND_ICONS = { csv: 'table', jsonl: 'table', parquet: 'table', image: 'image', notebook: 'notebook', folder: 'folder' };
const MORE_ROOTS = '…';

function render({ model, el }) {
  const form = openForm({ model, el }, 'Data browser');
  const crumbs = h('div', { class: 'ab-crumbs', role: 'group', 'aria-label': 'Folder' });
  const rootPick = h('select', { class: 'af-input ab-root', 'aria-label': 'Root', onchange: pickRoot });
  const refresh = h(
    'button',
    { type: 'button', class: 'af-button af-bare', title: 'Read the folder again', 'aria-label': 'Read the folder again', onclick: () => open(here.path) },
    icon('refresh')
  );
  const list = h('div', { class: 'ab-list' });
  const side = h('div', { class: 'ab-side' });
  const here = { root: model.get('root'), path: model.get('path'), asked: 0, looked: 0 };
  form.body.append(
    h('div', { class: 'ab-head' }, rootPick, crumbs, refresh),
    h('div', { class: 'ab-panes' }, h('div', { class: 'ab-left' }, list), side)
  );

  function pickRoot() {
    if (rootPick.value === MORE_ROOTS) {
      rootPick.value = here.root;
      showRoots(true);
      return;
    }
    here.root = rootPick.value;
    open('');
  }

  async function showRoots(start) {
    const options = roots => {
      const known = roots.items.some(root => root.name === here.root);
      const items = known ? roots.items : [...roots.items, { name: here.root, title: here.root }];
      rootPick.replaceChildren(
        ...items.map(root => h('option', { value: root.name }, root.title)),
        ...(roots.more ? [h('option', { value: MORE_ROOTS }, 'Other roots …')] : [])
      );
      rootPick.value = here.root;
    };
    options({ items: [], more: false });
    try {
      options(await form.ask('roots', { start }));
    } catch (error) {
      options({ items: [{ name: 'home', title: 'Home' }], more: true });
      if (start) list.prepend(problem(error));
    }
  }

  function showCrumbs() {
    const names = here.path.split('/').filter(Boolean);
    const parts = [h('li', {}, h('button', { type: 'button', class: 'ab-crumb', onclick: () => open('') }, here.root))];
    names.forEach((name, at) => {
      const path = names.slice(0, at + 1).join('/');
      const last = at === names.length - 1;
      parts.push(
        h('li', {}, h('button', { type: 'button', class: 'ab-crumb', 'aria-current': last ? 'true' : null, onclick: () => open(path) }, name))
      );
    });
    crumbs.replaceChildren(h('ol', {}, parts));
  }

  async function open(path) {
    here.path = path;
    here.asked += 1;
    const asked = here.asked;
    showCrumbs();
    list.replaceChildren(loading('Reading the folder …'));
    side.replaceChildren(hint());
    model.set('root', here.root);
    model.set('path', path);
    model.set('selected', '');
    model.save_changes();
    try {
      const page = await form.ask('listing', { root: here.root, path });
      if (asked === here.asked) showPage(page, path);
    } catch (error) {
      if (asked !== here.asked) return;
      if (error.code === 'not_a_folder') await openFile(path);
      else list.replaceChildren(problem(error));
    }
  }

  /** The form was opened on a file: show its folder, and the file beside it. */
  async function openFile(path) {
    const names = path.split('/');
    await open(names.slice(0, -1).join('/'));
    const name = names[names.length - 1];
    look(path, [...list.querySelectorAll('.ab-name')].find(button => button.dataset.name === name));
  }

  function showPage(page, path) {
    const rows = h('tbody', {});
    const count = h('span', {});
    const more = h('button', { type: 'button', class: 'af-button', onclick: next }, 'Show more');
    let token = page.next;
    add(page);
    const table = h(
      'table',
      { class: 'ab-table' },
      h(
        'thead',
        {},
        h('tr', {}, h('th', { scope: 'col' }, 'Name'), h('th', { scope: 'col', class: 'ab-size' }, 'Size'), h('th', { scope: 'col', class: 'ab-when' }, 'Changed'))
      ),
      rows
    );
    const empty = page.items.length === 0 && h('p', { class: 'ab-empty' }, 'This folder is empty.');
    list.replaceChildren(
      empty || h('div', { class: 'ab-rows', tabindex: '0', role: 'group', 'aria-label': 'Files' }, table),
      h('div', { class: 'ab-foot' }, count, more)
    );

    function add(found) {
      rows.append(...found.items.map(item => row(item, path)));
      const shown = rows.children.length;
      count.textContent = found.total === null || found.total === undefined ? `${number(shown)} shown` : `${number(shown)} of ${number(found.total)}`;
      more.hidden = !found.next;
    }

    async function next() {
      more.disabled = true;
      try {
        const found = await form.ask('listing', { root: here.root, path, page: token });
        token = found.next;
        add(found);
      } catch (error) {
        list.append(problem(error));
      }
      more.disabled = false;
    }
  }

  function row(item, folder) {
    const path = folder ? `${folder}/${item.name}` : item.name;
    const isFolder = item.type === 'folder';
    const name = h(
      'button',
      {
        type: 'button',
        class: 'ab-name',
        disabled: Boolean(item.problem),
        'data-name': item.name,
        title: item.problem ? `${item.name} ${item.problem}` : item.name,
        onclick: () => (isFolder ? open(path) : look(path, name))
      },
      icon(item.problem ? 'lock' : KIND_ICONS[item.type] ?? 'file', isFolder ? 'ab-folder' : ''),
      h('span', { class: 'ab-text' }, item.name),
      item.kind === 'link' ? icon('link', 'ab-link') : null,
      item.kind === 'link' ? h('span', { class: 'af-hidden' }, ' (link)') : null
    );
    return h(
      'tr',
      {},
      h('td', {}, name),
      h('td', { class: 'ab-size' }, bytes(item.size_bytes)),
      h('td', { class: 'ab-when' }, moment(item.modified_at))
    );
  }

  async function look(path, button = null, wanted = {}) {
    here.looked += 1;
    const looked = here.looked;
    for (const other of list.querySelectorAll('.ab-name[aria-pressed]')) other.removeAttribute('aria-pressed');
    button?.setAttribute('aria-pressed', 'true');
    side.replaceChildren(loading(`Looking at ${path.split('/').pop()} …`));
    model.set('selected', `${here.root}/${path}`);
    model.save_changes();
    try {
      const found = await form.ask('look', { root: here.root, path, ...wanted });
      if (looked === here.looked) side.replaceChildren(shown(found, budget => look(path, button, { ...wanted, budget_bytes: budget })));
    } catch (error) {
      if (looked === here.looked) side.replaceChildren(problem(error));
    }
  }

  showRoots(false);
  open(here.path);
  return () => form.close();
}

function hint() {
  return h('div', { class: 'ab-empty' }, icon('file'), h('p', {}, 'Pick a file to look at it. A big one tells its cost first.'));
}

/** A look at a file: what it is, what the look cost, its content, and the code that gives the same. */
function shown(found, readMore) {
  const { plan } = found;
  const facts = [found.kind, bytes(found.size_bytes), ...factsOf(found.facts)];
  const costs = [counted(found), plan.within_budget ? `${found.rows ? 'read' : 'Read'} ${bytes(found.bytes_read)} of ${bytes(found.size_bytes)} in ${duration(found.seconds)}` : ''];
  const place = `${found.root}/${found.path}`;
  return h(
    'article',
    { class: 'ab-look', 'aria-label': `Preview of ${found.name}` },
    h('h3', { class: 'ab-title' }, found.name),
    h('p', { class: 'ab-facts' }, facts.filter(Boolean).map(text => h('span', {}, text))),
    found.note && plan.within_budget ? h('p', { class: 'ab-note' }, found.note) : null,
    plan.within_budget ? null : costNotice(plan, readMore),
    h('div', { class: 'ab-content' }, content(found)),
    h('p', { class: 'ab-cost' }, costs.filter(Boolean).join(' · ')),
    h('div', { class: 'ab-actions' }, copyButton('Copy path', place), copyButton('Copy code', found.code), h('code', { class: 'ab-code' }, found.code))
  );
}

/** What is known of a file, in words: a count before what it counts, names alone where they say what they are. */
function factsOf(facts) {
  const { width, height, header, ...rest } = facts;
  const hidden = ['column names', 'written by'];
  const plain = ['format', 'mode', 'kernel', 'encoding', 'codec', 'dtype', 'shape'];
  const words = Object.entries(rest)
    .filter(([label]) => !hidden.includes(label))
    .slice(0, 8)
    .map(([label, value]) => {
      if (plain.includes(label)) return String(value);
      if (label === 'separator') return `separated by ${value}s`;
      if (typeof value === 'number' && label.endsWith('s')) return `${number(value)} ${value === 1 ? label.slice(0, -1) : label}`;
      if (label.endsWith('_hz')) return `${number(value)} Hz`;
      if (label.endsWith('_s')) return `${value} s`;
      return `${label} ${typeof value === 'number' ? number(value) : value}`;
    });
  return [width ? `${number(width)} × ${number(height)} pixels` : '', ...words, header === false ? 'no header' : ''];
}

function counted(found) {
  if (!found.rows) return '';
  const { length } = found.rows;
  const rows = found.total_rows === null ? `the first ${number(length)} rows` : `${number(length)} of ${number(found.total_rows)} rows`;
  return `${rows}, ${number(found.columns.length)} columns`;
}

function duration(seconds) {
  return seconds < 0.1 ? `${Math.max(1, Math.round(seconds * 1000))} ms` : `${seconds.toFixed(1)} s`;
}

function costNotice(plan, readMore) {
  const cost = bytes(plan.bytes_to_read);
  const button = h('button', { type: 'button', class: 'af-button', onclick: () => readMore(plan.bytes_to_read) }, `Read ${cost}`);
  return notice('warn', `Showing this file takes reading ${cost}.`, `Up to ${bytes(plan.budget_bytes)} are read without asking: ${plan.why}.`, button);
}

function content(found) {
  if (found.image) {
    const source = `data:image/png;base64,${found.image.png_base64}`;
    return h('div', { class: 'ab-picture' }, h('img', { src: source, alt: `${found.name}, ${found.image.width} by ${found.image.height} pixels` }));
  }
  if (found.rows) return table(found);
  if (found.cells) return h('div', { class: 'ab-cells af-scroll', tabindex: '0', role: 'group', 'aria-label': 'Cells' }, found.cells.map(cell));
  if (found.text !== null) {
    return found.text === ''
      ? h('p', { class: 'af-quiet' }, 'The file is empty.')
      : h('pre', { class: 'ab-textbox af-scroll', tabindex: '0', role: 'group', 'aria-label': 'Text' }, found.text.slice(0, 100_000), found.truncated ? '\n…' : '');
  }
  if (found.columns) return columns(found);
  return null;
}

function table(found) {
  const numeric = found.columns.map(column => /^(u?int|float|double|half|decimal)/.test(column.type));
  const head = found.columns.map((column, at) =>
    h('th', { scope: 'col', class: numeric[at] ? 'af-number' : '' }, column.name, h('div', { class: 'ab-type' }, column.type))
  );
  const rows = found.rows.map(row =>
    h(
      'tr',
      {},
      row.map((value, at) =>
        h('td', { class: `${numeric[at] ? 'af-number' : ''} ${value === null ? 'af-null' : ''}`, title: String(value) }, short(value))
      )
    )
  );
  const drawn = h('table', { class: 'af-table' }, h('thead', {}, h('tr', {}, head)), h('tbody', {}, rows));
  return h('div', { class: 'ab-tablebox af-scroll', tabindex: '0', role: 'group', 'aria-label': 'Rows' }, drawn);
}

/** A value as a cell shows it: fractions with six digits, the whole of it on hovering. */
function short(value) {
  return typeof value === 'number' && !Number.isInteger(value) ? String(Number(value.toPrecision(6))) : String(value);
}

function columns(found) {
  return h('ul', { class: 'ab-columns' }, found.columns.map(column => h('li', {}, h('code', {}, column.name), ' ', h('span', { class: 'ab-type' }, column.type))));
}

function cell(one) {
  return h(
    'div',
    { class: `ab-cell ab-cell-${one.kind}` },
    one.tags.length ? h('div', { class: 'ab-tags' }, one.tags.map(tag => h('span', {}, tag))) : null,
    h('pre', {}, one.source),
    one.output ? h('pre', { class: 'ab-output' }, one.output) : null
  );
}

export default { render };
