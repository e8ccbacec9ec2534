/** The export form: formats, live steps, and the proof as a table. */

const STEP_TEXT = {
  check: 'Check the model',
  write: 'Write',
  load: 'Load it again',
  verify: 'Compare outputs and measure',
  package: 'Package with its report',
  publish: 'Keep in the registry'
};

function render({ model, el }) {
  const form = openForm({ model, el }, 'Export form');
  const head = h('div', { class: 'ef-head' }, loading('Looking at the model …'));
  const picks = h('div', { class: 'ef-formats' });
  const steps = h('ol', { class: 'ef-steps', 'aria-live': 'polite', 'aria-label': 'Steps' });
  const result = h('div', { class: 'ef-result' });
  const name = h('input', { type: 'text', class: 'af-input', id: `ef-${Math.random().toString(36).slice(2)}`, maxLength: 63, spellcheck: false });
  const publish = h('input', { type: 'checkbox', checked: true });
  const button = h('button', { type: 'button', class: 'af-button af-main', disabled: true, onclick: start }, 'Export');
  const shown = new Map();
  form.body.append(
    head,
    h('div', { class: 'ef-section', role: 'group', 'aria-label': 'Formats' }, picks),
    h(
      'div',
      { class: 'ef-row' },
      h('label', { class: 'ef-name', for: name.id }, 'Name'),
      name,
      h('label', { class: 'ef-check' }, publish, 'Keep as a new version in the registry'),
      button
    ),
    steps,
    result
  );

  async function describe() {
    try {
      const about = await form.ask('describe');
      head.replaceChildren(
        h('h3', { class: 'ef-title' }, `Export ${about.model}`),
        h('p', { class: 'af-quiet' }, `A ${about.framework === 'pytorch' ? 'PyTorch' : 'Keras'} model. Each export is run and compared with it before it is kept.`)
      );
      name.value = about.name;
      picks.replaceChildren(...about.formats.map(format));
      button.disabled = false;
    } catch (error) {
      head.replaceChildren(problem(error));
    }
  }

  function format(about) {
    const box = h('input', { type: 'checkbox', value: about.name, checked: about.picked, onchange: () => (button.disabled = picked().length === 0) });
    return h('label', { class: 'ef-format' }, box, h('span', {}, h('span', { class: 'ef-format-name' }, about.name), h('span', { class: 'ef-format-title' }, about.title)));
  }

  function picked() {
    return [...picks.querySelectorAll('input:checked')].map(box => box.value);
  }

  async function start() {
    button.disabled = true;
    shown.clear();
    steps.replaceChildren();
    result.replaceChildren();
    for (const place of ['check', ...picked().flatMap(one => [`write ${one}`, `load ${one}`, `verify ${one}`]), 'package', ...(publish.checked ? ['publish'] : [])]) addStep(place);
    try {
      const answer = await form.ask('export', { formats: picked(), name: name.value.trim(), publish: publish.checked }, { patient: true });
      if (answer.error) fail(answer.error);
      else show(answer.report, !(await form.show(answer.bundle)));
    } catch (error) {
      fail(error);
    }
    button.disabled = false;
  }

  function addStep(place) {
    const [step, of = ''] = place.split(' ');
    const mark = h('span', { class: 'ef-mark' }, icon('dot'));
    const time = h('span', { class: 'ef-time' });
    const item = h('li', { class: `ef-step ef-step-${step}` }, mark, h('span', {}, STEP_TEXT[step] ?? step), of ? h('code', { class: 'ef-of' }, of) : null, time);
    shown.set(place, { item, mark, time });
    steps.append(item);
  }

  function onNews(message) {
    const news = message?.step;
    if (!news) return;
    const place = news.format ? `${news.name} ${news.format}` : news.name;
    if (!shown.has(place)) addStep(place);
    const { item, mark, time } = shown.get(place);
    item.dataset.state = news.state;
    if (news.state === 'begun') mark.replaceChildren(h('span', { class: 'af-spinner' }));
    else {
      mark.replaceChildren(icon('check'));
      time.textContent = news.seconds === null ? '' : `${news.seconds.toFixed(news.seconds < 1 ? 2 : 1)} s`;
    }
  }

  function fail(error) {
    for (const { item, mark } of shown.values()) {
      if (item.dataset.state === 'begun') {
        item.dataset.state = 'failed';
        mark.replaceChildren(icon('cross'));
      }
    }
    if (error.rows?.length) differs([...shown.keys()].findLast(place => place.startsWith('verify') && shown.get(place).item.dataset.state));
    result.replaceChildren(problem(error), error.rows?.length ? parity(error.rows) : '');
  }

  /** The comparison itself has ended well; what it found has not. */
  function differs(place) {
    if (!place) return;
    const { item, mark } = shown.get(place);
    item.dataset.state = 'failed';
    mark.replaceChildren(icon('cross'));
  }

  /** The table stands in the form only where nothing shows the model below it. */
  function show(report, withTable) {
    const version = report.version === null ? null : `${report.name}@${report.version}`;
    const where = version ? `Kept as ${version}.` : `The package lies in ${report.folder}.`;
    const link = version ? download(report) : null;
    const code = version ? `atelier.registry.find("${report.name}", ${report.version}).fetch()` : null;
    result.replaceChildren(
      notice('good', `Exported, and equal to the model. ${where}`, `${bytes(report.size_bytes)} in all. The package holds model.json, MANIFEST.sha256 and a README.`, link, code ? copyButton('Copy code', code) : copyButton('Copy path', report.folder)),
      withTable ? parity(report.rows) : ''
    );
  }

  describe();
  model.on('msg:custom', onNews);
  const last = model.get('report');
  if (last?.rows) show(last, last.version === null);
  return () => {
    model.off('msg:custom', onNews);
    form.close();
  };
}

/** The package as a ZIP through the page's own server; null where the page is not Jupyter's. */
function download(report) {
  const config = document.getElementById('jupyter-config-data');
  if (!config) return null;
  const { baseUrl } = JSON.parse(config.textContent);
  const place = `atelier/api/v1/models/${encodeURIComponent(report.name)}/versions/${encodeURIComponent(report.version)}/archive`;
  return h('a', { class: 'af-button', href: new URL(place, new URL(baseUrl, location.href)).href, download: `${report.name}-${report.version}.zip` }, icon('download'), 'Download');
}

function parity(rows) {
  const small = value => (value === null ? '–' : Number(value) === 0 ? '0' : Number.isFinite(Number(value)) ? Number(value).toExponential(1) : String(value));
  const ms = value => (value === null ? '' : value >= 100 ? value.toFixed(0) : value === 0 ? '0' : value.toPrecision(3));
  const share = value => (value === null ? '–' : value === 1 ? '100 %' : `${(value * 100).toFixed(2)} %`);
  const columns = ['Format', 'Batch', 'Max. difference', 'Relative', 'Same label', 'Model, ms', 'Export, ms', 'Size', ''];
  const body = rows.map(row =>
    h(
      'tr',
      { class: row.within ? '' : 'ef-differs' },
      h('td', {}, h('strong', {}, row.format)),
      ...[row.batch, small(row.max_abs), small(row.max_rel), share(row.labels_equal), ms(row.source_ms), ms(row.exported_ms), bytes(row.size_bytes)].map(text => h('td', { class: 'af-number' }, text)),
      h('td', {}, row.verdict ? h('span', { class: `ef-verdict ef-${row.verdict}` }, icon(row.verdict === 'equal' ? 'check' : 'cross'), row.verdict) : null)
    )
  );
  return h(
    'div',
    { class: 'af-scroll', tabindex: '0', role: 'group', 'aria-label': 'Parity report' },
    h(
      'table',
      { class: 'af-table ef-table' },
      h('thead', {}, h('tr', {}, columns.map((text, at) => (text ? h('th', { scope: 'col', class: at > 0 ? 'af-number' : '' }, text) : h('th', { scope: 'col' }, h('span', { class: 'af-hidden' }, 'Verdict')))))),
      h('tbody', {}, body)
    )
  );
}

export default { render };
