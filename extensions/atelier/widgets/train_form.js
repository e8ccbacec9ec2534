/** The training form: a field per parameter, checked as it is typed; where to run; what goes along; submit. */

const CHECK_AFTER_MS = 250;

function render({ model, el }) {
  const form = openForm({ model, el }, 'Training form');
  const values = { ...model.get('values') };
  const order = { image: null, machine: null, name: '', retries: 0, timeout: '' };
  const parts = {
    head: h('div', { class: 'tf-head' }),
    fields: h('div', {}, loading('Reading the parameters …')),
    places: h('div', {}, loading('Asking what can be had …')),
    files: h('div', {}, loading('Looking at what goes along …')),
    code: h('div', { class: 'tf-code' }),
    message: h('div', { class: 'tf-message', 'aria-live': 'polite' })
  };
  const submitButton = h('button', { type: 'button', class: 'af-button af-main', disabled: true, onclick: submit }, icon('run'), 'Run in background');
  const inputs = new Map();
  const known = new Map();
  let checkTimer = null;
  let checked = 0;
  let ready = { fields: false, places: false };
  let wrong = [];

  form.body.append(
    parts.head,
    section('Parameters', parts.fields),
    section('Where and how', parts.places),
    section('Files that go along', parts.files),
    h('div', { class: 'tf-foot' }, parts.message, h('div', { class: 'tf-actions' }, submitButton, parts.code))
  );

  async function start() {
    await Promise.all([
      fill('fields', 'describe', showFields),
      fill('places', 'places', showPlaces),
      fill('files', 'files', showFiles)
    ]);
    check();
  }

  async function fill(part, question, show) {
    try {
      show(await form.ask(question));
      if (part in ready) ready[part] = true;
      if (part === 'fields') form.root.classList.remove('tf-broken');
    } catch (error) {
      if (part === 'fields') {
        form.root.classList.add('tf-broken');
        parts.head.replaceChildren(h('h3', { class: 'tf-title' }, 'Train in the background'));
      }
      const again = h('button', { type: 'button', class: 'af-button', onclick: part === 'fields' ? start : () => fill(part, question, show).then(check) }, 'Try again');
      parts[part].replaceChildren(problem(error, again));
    }
  }

  function showFields(about) {
    const refresh = h('button', { type: 'button', class: 'af-button af-bare', onclick: start, title: 'Read the file again' }, icon('refresh'), 'Read again');
    parts.head.replaceChildren(
      h('div', {}, h('h3', { class: 'tf-title' }, 'Train in the background'), h('p', { class: 'af-quiet' }, h('code', {}, about.work), ` as saved ${moment(about.saved_at)}`)),
      refresh
    );
    inputs.clear();
    known.clear();
    if (about.free) {
      about.fields.push({ name: '*', type: 'dict', text: '{}', help: 'This work does not declare its parameters. Give them as one JSON object.', label: 'All parameters' });
    }
    if (about.fields.length === 0) {
      parts.fields.replaceChildren(
        h('p', { class: 'af-quiet' }, about.kind === 'notebook' ? 'No cell of this notebook is tagged “parameters”, so it runs as it is.' : 'It takes no parameters.')
      );
      return;
    }
    parts.fields.replaceChildren(h('div', { class: 'tf-grid' }, about.fields.map(field)));
  }

  function field(about) {
    known.set(about.name, about);
    const id = `tf-${Math.random().toString(36).slice(2)}`;
    const given = values[about.name] ?? about.text;
    const shared = { id, 'aria-describedby': `${id}-help ${id}-error` };
    const input = control(about, given, shared);
    const back = h('button', { type: 'button', class: 'tf-back', title: `Back to ${about.text || 'nothing'}`, 'aria-label': `${about.name}: back to its default`, onclick: reset }, icon('refresh'));
    const box = h(
      'div',
      { class: `tf-field ${about.name === '*' ? 'tf-wide' : ''}` },
      h('label', { for: id, class: 'tf-label' }, h('span', { class: 'af-mono' }, about.label ?? about.name), h('span', { class: 'tf-type' }, about.required ? `${about.type}, needed` : about.type), back),
      input,
      h('p', { class: 'tf-help', id: `${id}-help` }, about.help),
      h('p', { class: 'tf-error', id: `${id}-error` })
    );
    const read = () => (input.type === 'checkbox' ? (input.checked ? 'true' : 'false') : input.value);
    input.addEventListener(input.tagName === 'SELECT' || input.type === 'checkbox' ? 'change' : 'input', changed);
    inputs.set(`parameter:${about.name}`, { input, box });
    box.classList.toggle('tf-changed', given !== about.text);

    function changed() {
      const text = read();
      if (text === about.text) delete values[about.name];
      else values[about.name] = text;
      box.classList.toggle('tf-changed', text !== about.text);
      model.set('values', { ...values });
      model.save_changes();
      later();
    }

    function reset() {
      if (input.type === 'checkbox') input.checked = about.text === 'true';
      else input.value = about.text;
      changed();
      input.focus();
    }
    return box;
  }

  function control(about, given, shared) {
    if (about.choices) {
      const none = about.nullable || about.required || !about.choices.includes(about.text) ? [h('option', { value: '' }, about.nullable ? 'None' : '…')] : [];
      const select = h('select', { class: 'af-input', ...shared }, none, about.choices.map(choice => h('option', { value: choice }, choice)));
      select.value = given;
      return select;
    }
    if (about.type === 'bool' && !about.nullable && !about.required) return h('input', { type: 'checkbox', checked: given === 'true', ...shared });
    if (about.name === '*' || (['list', 'dict'].includes(about.type) && given.length > 40)) return h('textarea', { class: 'af-input af-mono', value: given, spellcheck: false, ...shared });
    const isNumber = about.type === 'int' || about.type === 'float';
    return h('input', {
      type: 'text',
      class: `af-input ${about.type === 'str' ? '' : 'af-mono'}`,
      value: given,
      inputMode: isNumber ? 'decimal' : 'text',
      placeholder: about.nullable ? 'None' : about.required ? 'needed' : '',
      autocomplete: 'off',
      spellcheck: false,
      ...shared
    });
  }

  function showPlaces(about) {
    order.image = order.image ?? about.image;
    order.machine = order.machine ?? about.machine;
    const name = option('Name', 'name', h('input', { type: 'text', class: 'af-input', placeholder: 'as the file', maxLength: 200, value: order.name }));
    const retries = option('Retries', 'retries', h('input', { type: 'number', class: 'af-input', min: 0, max: 100, value: order.retries }));
    const timeout = option('Time limit', 'timeout', h('input', { type: 'text', class: 'af-input', placeholder: 'none, or 2h', value: order.timeout }));
    const image = about.images.length ? cards('Image', 'image', about.images, imageCard) : h('p', { class: 'af-quiet' }, 'The catalog has no image; the run uses this kernel’s own Python.');
    parts.places.replaceChildren(image, cards('Machine', 'machine', about.machines, machineCard), h('div', { class: 'tf-options' }, name, retries, timeout));
  }

  function option(label, key, input) {
    const id = `tf-${Math.random().toString(36).slice(2)}`;
    input.id = id;
    input.setAttribute('aria-describedby', `${id}-error`);
    input.addEventListener('input', () => {
      order[key] = key === 'retries' ? Number(input.value) || 0 : input.value.trim();
      later();
    });
    const box = h('div', { class: 'tf-field' }, h('label', { class: 'tf-label', for: id }, label), input, h('p', { class: 'tf-error', id: `${id}-error` }));
    inputs.set(key, { input, box });
    return box;
  }

  function cards(label, key, entries, describe) {
    const group = `tf-${key}-${Math.random().toString(36).slice(2)}`;
    const error = h('p', { class: 'tf-error' });
    const box = h(
      'div',
      { class: 'tf-cards', role: 'radiogroup', 'aria-label': label },
      entries.map(entry => {
        const radio = h('input', { type: 'radio', name: group, value: entry.name, checked: order[key] === entry.name, disabled: !entry.available });
        radio.addEventListener('change', () => {
          order[key] = entry.name;
          later();
        });
        return h('label', { class: `tf-card ${entry.available ? '' : 'tf-unavailable'}` }, radio, h('span', { class: 'tf-card-text' }, describe(entry)));
      })
    );
    const whole = h('div', { class: 'tf-choice' }, h('h4', { class: 'tf-choice-label' }, label), box, error);
    inputs.set(key, { input: box, box: whole });
    return whole;
  }

  function imageCard(entry) {
    const version = [entry.framework, entry.version].filter(Boolean).join(' ');
    return [h('span', { class: 'tf-card-title' }, entry.title || entry.name), h('span', { class: 'tf-card-facts' }, entry.available ? version : entry.why || 'not available')];
  }

  function machineCard(entry) {
    const parts = [`${entry.cpu} CPU`, bytes(entry.memory_bytes), ...Object.entries(entry.accelerators ?? {}).map(([kind, count]) => `${count} × ${kind}`)];
    const price = entry.price_per_hour ? `${entry.price_per_hour} / hour` : 'free';
    const title = entry.title && !entry.title.startsWith(parts[0]) && entry.title !== entry.name ? [entry.title] : []; // a made one says the same
    return [
      h('span', { class: 'tf-card-title' }, entry.name),
      h('span', { class: 'tf-card-facts' }, [...title, ...parts, price].join(' · ')),
      entry.available ? null : h('span', { class: 'tf-card-facts' }, entry.why || 'not available')
    ];
  }

  function showFiles(plan) {
    const words = `${number(plan.count)} ${plan.count === 1 ? 'file' : 'files'}, ${bytes(plan.size_bytes)}`;
    const git = plan.git_revision ? `git ${plan.git_revision.slice(0, 8)}${plan.git_dirty ? ', with changes that are not committed' : ''}` : 'not in a git repository';
    const rest = plan.count - plan.files.length;
    const rows = plan.files.map(file => h('tr', {}, h('td', { class: 'af-mono', title: file.path }, file.path), h('td', { class: 'af-number' }, bytes(file.size_bytes))));
    parts.files.replaceChildren(
      h(
        'details',
        { class: 'tf-files' },
        h('summary', {}, words, h('span', { class: 'af-quiet' }, ` from ${plan.root} · ${git}`)),
        h(
          'div',
          { class: 'af-scroll tf-filebox', tabindex: '0', role: 'group', 'aria-label': 'List of files' },
          h('table', { class: 'af-table' }, h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'File'), h('th', { scope: 'col', class: 'af-number' }, 'Size'))), h('tbody', {}, rows)),
          rest > 0 ? h('p', { class: 'af-quiet' }, `and ${number(rest)} smaller ones`) : null
        )
      ),
      ...plan.warnings.map(text => notice('warn', text))
    );
  }

  function later() {
    clearTimeout(checkTimer);
    checkTimer = setTimeout(check, CHECK_AFTER_MS);
  }

  async function check() {
    if (!ready.fields) return;
    checked += 1;
    const mine = checked;
    try {
      const answer = await form.ask('check', { values, ...order });
      if (mine !== checked) return;
      showErrors(answer.errors);
      parts.code.replaceChildren(copyButton('Copy code', answer.code, { bare: true }), h('code', { title: answer.code }, answer.code));
    } catch (error) {
      if (mine === checked) parts.message.replaceChildren(problem(error));
    }
  }

  /** Each error beside its field; what belongs to no field goes above the button. */
  function showErrors(errors) {
    wrong = errors;
    for (const { input, box } of inputs.values()) {
      input.removeAttribute('aria-invalid');
      box.classList.remove('tf-wrong');
      const place = box.querySelector('.tf-error');
      if (place) place.replaceChildren();
    }
    const rest = errors.filter(error => {
      const found = inputs.get(error.field);
      if (!found) return true;
      found.box.classList.add('tf-wrong');
      if (found.input.tagName !== 'DIV') found.input.setAttribute('aria-invalid', 'true');
      found.box.querySelector('.tf-error')?.replaceChildren(h('span', { title: error.code }, error.message, error.hint ? ` ${error.hint}` : ''));
      return false;
    });
    parts.message.replaceChildren(...rest.map(error => problem(error)));
    submitButton.disabled = !(ready.fields && ready.places) || errors.length > 0;
  }

  async function submit() {
    clearTimeout(checkTimer);
    submitButton.disabled = true;
    parts.message.replaceChildren(loading('Sending the code …'));
    try {
      const answer = await form.ask('submit', { values, ...order });
      showErrors(answer.error ? [answer.error] : []);
      if (answer.run) {
        const code = `atelier.run("${answer.run}")`;
        const isBelow = await form.show(answer.bundle);
        parts.message.replaceChildren(
          notice('good', `Submitted ${answer.name} as ${answer.run}.`, `It goes on when you close the tab. ${isBelow ? 'Its live view is below' : 'Put form.run into a cell to watch it'}.`, copyButton(`Copy ${code}`, code)),
          ...answer.warnings.map(text => notice('warn', text))
        );
      }
    } catch (error) {
      parts.message.replaceChildren(problem(error));
    }
    submitButton.disabled = wrong.some(error => inputs.has(error.field));
  }

  start();
  return () => {
    clearTimeout(checkTimer);
    form.close();
  };
}

function section(title, content) {
  return h('div', { class: 'tf-section', role: 'group', 'aria-label': title }, h('h4', {}, title), content);
}

export default { render };
