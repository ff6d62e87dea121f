// The page SQL: an editor, the result as a grid and a chart. The statement, the version it is read as of and the chart stand
// in the address; what runs is ended by asking no longer.

import {ask, el, empty, grid, nil, number, plot, plural, query, section} from '/assets/ui.js';

const numeric = t => /^(U?(TINY|SMALL|BIG|HUGE)INT|U?INTEGER|FLOAT|DOUBLE|DECIMAL)/.test(t);
const temporal = t => /^(DATE$|TIMESTAMP)/.test(t);
const seconds = text => { const v = Date.parse(/^\d{4}-\d\d-\d\d$/.test(text) ? text + 'T00:00:00Z' : text.replace(' ', 'T').replace(/(T[\d:.]+)$/, '$1Z')); return Number.isNaN(v) ? null : v / 1000; };

let page; // it is made once, so that the editor keeps what is in it

export async function sqlPage(go) {
  page ??= make(go);
  const p = await page;
  p.read();
  return p.elements;
}

async function make(go) {
  const [{create}, {relations}] = await Promise.all([import('/assets/lib/editor.js'), ask('/api/sql/schema')]);
  const own = relations.filter(r => r.schema === 'public'), first = own[0];
  const name = r => r.schema === 'public' ? r.name : `${r.schema}.${r.name}`;
  const quoted = n => /^[a-z_][a-z0-9_]*$/.test(n) ? n : `"${n.replaceAll('"', '""')}"`;
  const schema = {};
  for (const r of relations) (r.schema === 'public' ? schema : schema[r.schema] ??= {})[r.name] = r.columns.map(c => ({label: c.name, type: 'property', detail: c.type, apply: quoted(c.name)}));

  let running = null, result = null, shown = null; // shown: the query of the address whose result is shown
  const host = el('div.editor'), output = el('div', {'aria-live': 'polite'});
  const version = el('input', {name: 'version', type: 'number', min: 0, placeholder: 'newest'}), at = el('input', {name: 'time', type: 'text', placeholder: '2024-08-20 12:00:00', size: 19});
  const runButton = el('button', {type: 'submit'}, 'Run'), cancel = el('button.plain', {type: 'button', disabled: true, on: {click: () => running?.abort()}}, 'Cancel');
  const editor = create(host, {doc: '', schema, run: () => submit(), change: () => {}});
  const state = () => {
    const q = new URLSearchParams({sql: editor.text()});
    if (version.value !== '') q.set('version', version.value);
    if (at.value.trim() !== '') q.set('time', at.value.trim());
    return q;
  };
  const submit = () => {
    const q = state(), old = query();
    for (const k of ['chart', 'x', 'y']) if (old.has(k) && old.get('sql') === q.get('sql')) q.set(k, old.get(k));
    if (q.toString() === old.toString()) run(); else go('/sql?' + q);
  };
  const asked = q => { const a = new URLSearchParams(); for (const k of ['sql', 'version', 'time']) if (q.has(k)) a.set(k, q.get(k)); return a; };

  async function run() {
    const q = query();
    running?.abort();
    const mine = running = new AbortController();
    shown = asked(q).toString();
    runButton.disabled = true;
    cancel.disabled = false;
    const began = Date.now(), clock = el('p.empty', 'running …');
    const tick = setInterval(() => { clock.textContent = `running for ${Math.round((Date.now() - began) / 1000)} s …`; }, 1000);
    output.replaceChildren(clock);
    try {
      result = await ask('/api/sql?' + asked(q), {signal: mine.signal});
      if (mine === running) draw();
    } catch (e) {
      result = null;
      if (mine !== running) return;
      output.replaceChildren(e.name === 'AbortError' ? empty('Cancelled.') : el('section.error', {role: 'alert'}, el('h2', 'The statement failed'), el('p', e.message), e.hint ? el('p', e.hint) : null, e.code ? el('p', el('small', `SQLSTATE ${e.code}`)) : null));
    } finally {
      clearInterval(tick);
      if (mine === running) { running = null; runButton.disabled = false; cancel.disabled = true; }
    }
  }

  // draw shows the result with the chart that the address names.
  function draw() {
    const q = query(), {columns, rows} = result;
    const of = Object.entries(result.read ?? {}).map(([t, v]) => `${t} at version ${v}`).join(', ');
    const facts = `${plural(rows.length, 'row')}${result.more ? ', the first of more' : ''} in ${result.seconds.toFixed(2)} s${of ? ` · ${of}` : ''}`;
    const chart = rows.length > 0 && columns.some(c => numeric(c.type)) ? charts(q, columns, rows) : null;
    output.replaceChildren(...[chart,
      section('Result', el('p.sub', {role: 'status'}, facts, rows.length ? [' · ', el('a', {href: '/api/sql.csv?' + asked(q), download: '', class: 'download'}, result.more ? 'all rows as CSV' : 'CSV')] : null),
        columns.length ? grid(columns.map(c => (numeric(c.type) ? '>' : '') + c.name), rows.map(r => r.map((v, i) => v === null ? nil() : el(numeric(columns[i].type) ? 'td.n' : 'td.cell', v))), 'result') : null,
        rows.length ? null : empty('No rows.'))].filter(Boolean));
  }

  function charts(q, columns, rows) {
    const kinds = ['none', 'line', 'bars', 'points'];
    const kind = kinds.includes(q.get('chart')) ? q.get('chart') : 'none';
    const at = (key, def) => { const i = columns.findIndex(c => c.name === q.get(key)); return i < 0 ? def : i; };
    const x = at('x', Math.max(columns.findIndex(c => temporal(c.type)), 0));
    const other = columns.findIndex((c, i) => numeric(c.type) && i !== x), y = at('y', other < 0 ? x : other); // one number alone is drawn over itself
    const choose = (label, key, options, value) => el('label', label, el('select', {name: key, on: {change: e => {
      const next = query();
      next.set(key, e.target.value);
      history.replaceState(null, '', '/sql?' + next);
      draw();
      output.querySelector(`select[name=${key}]`)?.focus();
    }}}, options.map(o => el('option', {value: o, selected: o === value}, o))));
    const names = columns.map(c => c.name), parts = [choose('chart', 'chart', kinds, kind)];
    let picture = null;
    if (kind !== 'none' && y >= 0) {
      parts.push(choose('x', 'x', names, names[x]), choose('y', 'y', names.filter((n, i) => numeric(columns[i].type)), names[y]));
      const time = temporal(columns[x].type), place = time ? seconds : numeric(columns[x].type) ? Number : v => v;
      let points = rows.map(r => [r[x] === null ? null : place(r[x]), r[y] === null ? null : Number(r[y])]).filter(p => p[0] !== null);
      if (time || numeric(columns[x].type)) points = points.sort((a, b) => a[0] - b[0]); // uPlot wants x to rise
      picture = points.length ? plot(points.map(p => p[0]), [{name: names[y], values: points.map(p => p[1])}], {what: `${names[y]} by ${names[x]}, ${plural(points.length, 'row')}`, kind, time}) : empty('There is nothing to draw.');
    }
    return section('Chart', el('div.ask', parts), picture);
  }

  const examples = first ? [`SELECT count(*) AS n FROM ${quoted(first.name)}`, `SELECT * FROM ${quoted(first.name)} LIMIT 100`, 'SELECT * FROM lake.versions ORDER BY committed_at DESC LIMIT 20'] : [];
  const elements = [el('h1', 'SQL'), el('p.sub', 'reads, and changes nothing · Ctrl-Enter runs · names are completed while you type'),
    el('section', {'aria-label': 'Statement'},
      el('form', {on: {submit: e => { e.preventDefault(); submit(); }}}, host,
        el('div.ask', runButton, cancel, el('label', 'as of version', version), el('label', 'or as of a time (UTC)', at))),
      el('details', el('summary', `${number(own.length)} tables and views, and what the lake tells of itself`),
        el('ul.relations', relations.map(r => el('li', el('b', name(r)), r.comment ? ` – ${r.comment}` : '', el('div.mono', r.columns.map(c => `${c.name} ${c.type}`).join(', '))))))),
    output];
  return {
    elements,
    // read makes the page what the address says.
    read() {
      const q = query();
      if (asked(q).toString() === shown) { if (result) draw(); return; }
      if (q.get('sql') !== editor.text() || shown === null) editor.set(q.get('sql') ?? '');
      version.value = q.get('version') ?? '';
      at.value = q.get('time') ?? '';
      if ((q.get('sql') ?? '').trim() !== '') { run(); return; }
      running?.abort();
      running = result = null;
      shown = '';
      output.replaceChildren(section('Examples', first ? el('ul', examples.map(x => el('li', el('a', {href: '/sql?' + new URLSearchParams({sql: x}), class: 'mono'}, x)))) : empty('There is nothing to read.')));
    },
  };
}
