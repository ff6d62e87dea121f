// The program of the pages. Each page is a function that asks the lake and gives the elements to show; what it shows is
// decided by the address alone, so that every state can be bookmarked.

import {ago, ask, bars, bytes, el, empty, figure, figures, form, grid, link, nil, number, plot, plural, post, query, section, time} from '/assets/ui.js';
import {sqlPage} from '/assets/sql.js';

const main = document.getElementById('main');
const state = document.getElementById('state');

const table = (lake, name) => lake.tables.find(t => t.name === name);
const rule = e => el('div.node', el('b', e.name), el('code', e.check), el('small', e.on_fail === 'quarantine' ? 'else to quarantine' : e.on_fail === 'fail' ? 'else the run fails' : 'else a warning'));

const kinds = {files: 'files', embedded: 'embedded buffer', kafka: 'Kafka', pubsub: 'Pub/Sub'};

const pages = {
  sql: () => sqlPage(go),

  async lake() {
    const [lake, st] = await Promise.all([ask('/api/lake'), ask('/api/status')]);
    const bad = st.quarantine.reduce((n, q) => n + q.rows, 0);
    const newest = st.tables.map(t => t.time).sort().at(-1);
    const rate = st.sources.reduce((n, s) => n + (s.recent && new Date(st.now) - new Date(s.recent.last) < 300e3 ? s.recent.per_second : 0), 0);
    return [
      el('h1', 'Lake'), el('p.sub', `${lake.file} · ${lake.storage}`),
      figures(
        figure('rows', number(st.tables.filter(t => table(lake, t.name)).reduce((n, t) => n < 0 || t.rows < 0 ? -1 : n + t.rows, 0)), `in ${plural(lake.tables.length, 'table')}`),
        figure('last commit', st.tables.some(t => t.exists) ? ago(newest, st.now) : 'never', time(newest)),
        figure('events a second', rate.toLocaleString('en-US', {maximumFractionDigits: 1}), 'of the last commits'),
        figure('in quarantine', number(bad), bad ? link('/quarantine', 'look at them') : 'nothing')),
      ...lake.tables.map(t => {
        const at = st.tables.find(x => x.name === t.name);
        const sources = lake.sources.filter(s => s.table === t.name);
        return section(t.name, el('div.flow',
          el('div.col', sources.map(s => {
            const now = st.sources.find(x => x.name === s.name), lag = st.lags[s.name];
            return el('div.node', el('b', s.name, ' ', el('span.pill', kinds[s.kind] ?? s.kind)), el('small.mono', s.from),
              el('small', s.kind === 'files' ? `${plural(now.files, 'file')} read, ${plural(now.epoch, 'commit')}` : `${plural(now.epoch, 'commit')}${lag && !lag.error ? `, ${number(lag.records)} waiting` : ''}`));
          })),
          el('div.arrow', {'aria-hidden': true}, '→'),
          el('div.col',
            t.transform.map(s => el('div.node', s.where ? [el('b', 'keep where'), el('code', s.where)] : [el('b', 'set'), s.set.map(m => el('div', el('code', `${m.column} = ${m.sql}`)))])),
            t.expect.map(rule), t.transform.length + t.expect.length ? null : el('div.node', 'no shared steps')),
          el('div.arrow', {'aria-hidden': true}, '→'),
          el('div.col', el('div.node', el('b', link('/table/' + encodeURIComponent(t.name), t.name)),
            at.exists ? [el('small', `${number(at.rows)} rows, ${plural(at.files, 'file')}, ${bytes(at.bytes)}`), el('small', `version ${at.version}, ${ago(at.time, st.now)}`)] : el('small', 'nothing written yet'),
            el('small', `key ${t.key.join(', ') || 'none: rows are appended'}`), t.partition_by.length ? el('small', `partitioned by ${t.partition_by.join(', ')}`) : null))));
      }),
    ];
  },

  async table(name) {
    const lake = await ask('/api/lake');
    if (!name) return name === undefined && lake.tables.length ? redirect('/table/' + encodeURIComponent(lake.tables[0].name)) : [empty('the lake file declares no table')];
    const q = query(), at = q.get('version'), base = '/api/table/' + encodeURIComponent(name);
    const v = at ? '?version=' + encodeURIComponent(at) : '';
    const from = q.get('from'), to = q.get('to');
    const [t, h, rows, diff] = await Promise.all([ask(base + v), ask(base + '/history?limit=200'), ask(`${base}/rows${v || '?'}&limit=50`.replace('?&', '?')),
      from && to ? ask(`${base}/difference?from=${encodeURIComponent(from)}&to=${encodeURIComponent(to)}`) : null]);
    const here = '/table/' + encodeURIComponent(name);
    const tabs = lake.tables.length > 1 ? el('p.sub', lake.tables.flatMap((x, i) => [i ? ' · ' : '', x.name === name ? el('b', x.name) : link('/table/' + encodeURIComponent(x.name), x.name)])) : null;
    if (!t.exists) return [el('h1', name), tabs, empty('Nothing has been written to this table yet. cauce run batch and cauce run stream write it.')];
    const most = Math.max(...t.partitions.map(p => p.bytes), 1);
    return [
      el('h1', name), tabs,
      el('p.sub', at ? ['as of version ', at, ' · ', link(here, 'the newest')] : `version ${t.version} of ${time(t.time)}`),
      figures(figure('rows', number(t.rows)), figure('files', number(t.files)), figure('size', bytes(t.bytes)), figure('partitions', number(t.partitions.length))),
      section('Versions', h.commits.length > 1 ? bars(h.commits.toReversed().map(c => rowsOf(c)), h.commits.toReversed().map(c => 'version ' + c.version), 'rows written by each commit') : null,
        form([{name: 'version', label: 'show the table as of version', type: 'number', placeholder: String(t.version)}, {name: 'from', label: 'difference from version', type: 'number'}, {name: 'to', label: 'to version', type: 'number'}], 'Show', go),
        diff ? difference(diff) : null,
        grid(['>version', 'time (UTC)', 'operation', 'source', '>rows', '>files', 'engine', ''], h.commits.map(c => [
          link(`${here}?version=${c.version}`, c.version), time(c.time), c.operation, c.source ?? '', number(rowsOf(c)), `+${c.files_added} −${c.files_removed}`, c.engine ?? '',
          c.version > 0 ? link(`${here}?from=${c.version - 1}&to=${c.version}`, 'what changed') : '']), 'versions')),
      section('Partitions', t.partition_by.length ? el('ul.heat', t.partitions.map(p => el('li', {style: {'--share': `${100 * p.bytes / most}%`}},
        el('b', t.partition_by.map(c => p.values[c] ?? 'null').join(', ')), el('span', number(p.rows), ' rows'), el('span', plural(p.files, 'file'), ', ', bytes(p.bytes)), el('i')))) : empty('the table is not partitioned')),
      el('div.two',
        section('Schema', grid(['column', 'type', 'null', 'what it is'], t.columns.map(c => [c.name, el('td', el('code', c.type)), c.nullable ? 'yes' : 'no', c.comment ?? '']), 'columns')),
        section('Files', grid(['file', '>rows', '>deleted', '>size'], t.list.slice(0, 100).map(f => [el('td.mono.wrap', f.path), number(f.rows), number(f.deleted), bytes(f.bytes)]), 'files'),
          t.files > 100 ? el('p.sub', `the largest 100 of ${number(t.files)}`) : null)),
      section(at ? `Some rows as of version ${at}` : 'Some rows', rows.rows.length ? grid(rows.columns, rows.rows.map(r => r.map(x => x === null ? nil() : el('td', x))), 'rows') : empty('no rows')),
    ];
  },

  async runs(id) {
    if (id) {
      const r = await ask('/api/runs/' + encodeURIComponent(id));
      const retry = el('button', {type: 'button', on: {click: async () => {
        retry.disabled = true;
        try {
          await post(`/api/runs/${encodeURIComponent(id)}/retry`);
          notice = 'The run is tried again.';
        } catch (e) { notice = e.message; }
        retry.blur();
        await show();
      }}}, 'Try this run again');
      const mayRetry = !session.login && !r.command && ['failed', 'interrupted', 'stopped'].includes(r.status);
      const text = await logOf(r);
      return [el('h1', 'Run ', id), el('p.sub', link('/runs', 'all runs')),
        notice ? el('p.sub', {role: 'status'}, notice) : null,
        figures(figure('task', r.task), figure('status', status(r.status)), figure('started (UTC)', time(r.started)), figure('attempts', number(r.attempts.length))),
        r.command ? el('p', 'asked for by ', el('code', r.command)) : null,
        mayRetry ? el('p', retry) : null,
        r.error ? section('Error', el('pre.wrap', r.error)) : null,
        section('Attempts', r.attempts.length ? grid(['started (UTC)', '>seconds', 'error'], r.attempts.map(a => [time(a.started), seconds(a), el('td.wrap', a.error === r.error ? 'as above' : a.error ?? '')]), 'attempts') : empty('none yet')),
        section('Log', text),
        r.result ? section('Result', el('pre', {tabindex: 0}, JSON.stringify(r.result, null, 2))) : null];
    }
    const {runs} = await ask('/api/runs');
    if (!runs.length) return [el('h1', 'Runs'), empty('Nothing has run yet. cauce up runs batch and maintenance at their times; cauce run batch runs a batch at once.')];
    const ended = runs.filter(r => took(r) !== null).toReversed();
    const values = good => ended.map(r => good === (r.status === 'ok') ? took(r) : null);
    return [el('h1', 'Runs'), el('p.sub', 'batch and maintenance on this machine, newest first'),
      section('History', ended.length > 1 ? plot(ended.map(r => time(r.started)), [{name: 'succeeded', values: values(true)}, {name: 'did not', values: values(false)}], {what: `seconds that each run took; longest ${shortly(Math.max(...ended.map(took)))}`}) : null,
        grid(['status', 'task', 'started (UTC)', '>seconds', '>attempts', 'error', 'run'], runs.map(r => [
          el('td', status(r.status)), r.task, link('/runs/' + encodeURIComponent(r.id), time(r.started)), seconds(r), r.attempts.length, el('td.wrap', clip(r.error ?? '', 240)), el('td.mono.id', r.id)]), 'runs'))];
  },

  async streaming() {
    const [lake, st] = await Promise.all([ask('/api/lake'), ask('/api/status')]);
    const streams = st.sources.filter(s => s.kind !== 'files');
    if (!streams.length) return [el('h1', 'Streaming'), empty('The lake file declares no stream.')];
    const histories = {};
    for (const t of new Set(streams.map(s => s.table))) histories[t] = (await ask(`/api/table/${encodeURIComponent(t)}/history?limit=200`)).commits;
    return [el('h1', 'Streaming'), el('p.sub', `a commit each ${lake.trigger}`), ...streams.map(s => {
      const lag = st.lags[s.name], own = histories[s.table].filter(c => c.source === s.name).toReversed();
      return section(s.name, figures(
        figure('waiting', !lag ? '–' : lag.error ? '?' : number(lag.records), lag?.error),
        figure('oldest waits', lag && !lag.error && lag.records ? `${lag.seconds.toFixed(1)} s` : '–'),
        figure('events a second', s.recent ? s.recent.per_second.toFixed(1) : '–', s.recent ? `over ${plural(s.recent.commits, 'commit')}` : ''),
        figure('last commit', s.recent ? ago(s.recent.last, st.now) : 'never', s.recent ? time(s.recent.last) : '')),
        own.length > 1 ? bars(own.map(rowsOf), own.map(c => time(c.time)), 'rows of each commit') : null,
        s.streams?.length ? grid(['incarnation', '>partition', '>offset', 'time of the event (UTC)'], s.streams.flatMap(x => (x.positions ?? []).map(p => [el('td.mono.wrap', x.incarnation), p.partition, number(p.offset), time(p.time)])), 'positions of ' + s.name) : empty('Nothing has been read yet.'));
    })];
  },

  async quarantine() {
    const q = query(), [lake, st, {rows, max}] = await Promise.all([ask('/api/lake'), ask('/api/status'), ask('/api/quarantine?' + q)]);
    const rules = [...new Set(st.quarantine.map(x => x.rule))].sort();
    const retry = el('button', {type: 'button', on: {click: async () => {
      retry.disabled = true;
      try {
        const body = await post('/api/quarantine/retry?' + q);
        notice = `${plural(body.tried, 'record')} tried: ${body.resolved} resolved, ${body.still_bad} still bad`;
        await show();
      } catch (e) { notice = e.message; await show(); }
    }}}, 'Try these again');
    return [el('h1', 'Quarantine'), el('p.sub', 'records that did not fit, kept as they came'),
      notice ? el('p.sub', {role: 'status'}, notice) : null,
      st.quarantine.length ? section('By rule', grid(['rule', '>records', 'source', 'table'], st.quarantine.map(x => [link(`/quarantine?rule=${encodeURIComponent(x.rule)}&source=${encodeURIComponent(x.source)}`, x.rule), number(x.rows), x.source, x.table]), 'counts by rule')) : null,
      section('Records', form([{name: 'source', label: 'source', options: ['', ...lake.sources.map(s => s.name)]}, {name: 'rule', label: 'rule', options: ['', ...rules]}, {name: 'all', label: 'resolved ones too', options: [['', 'no'], ['true', 'yes']]}], 'Show', go),
        rows.length ? [el('p', session.login ? null : retry, rows.length >= max ? ` the first ${max}` : ''), grid(['source', 'where', 'rule', 'reason', 'raw record', 'state'], rows.map(r => [r.source,
          el('td.mono.wrap', r.file ? `${r.file}:${r.line ?? r.position}` : `${r.topic}/${r.partition ?? 0}@${r.offset ?? 0}`), el('td.mono', r.rule), el('td.wrap', r.reason),
          el('td.mono.wrap', clip(r.raw, 400)), r.state]), 'records in quarantine')] : empty('Nothing is in quarantine.'))];
  },

  async gaps() {
    const g = await ask('/api/gaps?' + query());
    const with_ = g.tables.filter(t => t.ledger);
    if (!with_.length) return [el('h1', 'Gaps'), empty('No table of this lake has a ledger, so nothing can be said of missing rows. See ledger in the lake file.')];
    const series = [...new Set(g.days.map(d => d.series))].sort(), days = [...new Set(g.days.map(d => d.day))].sort().toReversed();
    const by = new Map(g.days.map(d => [d.day + '\0' + d.series, d]));
    return [el('h1', 'Gaps'), el('p.sub', g.missing ? `${plural(g.missing, 'id')} missing; cauce gaps --repair fetches what the source still has` : 'nothing is missing of what the tables should have'),
      section('Completeness', days.length ? grid(['day', ...series], days.map(day => [el('th', {scope: 'row'}, day), ...series.map(s => {
        const d = by.get(day + '\0' + s);
        return d ? el('td', {title: d.statement}, el(d.state.startsWith('complete') ? 'span.pill.good' : 'span.pill.bad', d.state), el('small', `${number(d.rows)} rows`), el('small', `ids ${d.from}–${d.to}`)) : el('td.nil', 'no rows');
      })]), 'completeness by day and series') : empty('No rows yet.')),
      section('Holes', g.holes.length ? grid(['series', '>ids', '>from', '>to', 'whose', 'why'], g.holes.slice(0, 200).map(h => [h.series, number(h.ids), h.from, h.to, h.owner, el('td.wrap', h.why)]), 'holes') : empty('None.')),
      g.offsets?.length ? section('Lost offsets', grid(['source', 'topic', '>partition', '>from', '>to', 'why'], g.offsets.map(o => [o.source, o.topic,
        ...(o.partition < 0 ? ['all', '-', '-'] : [o.partition, o.from, o.to < o.from ? '?' : o.to]), el('td.wrap', o.reason)]), 'lost offsets')) : null];
  },

  async connect() {
    const lake = await ask('/api/lake'), st = await ask('/api/status');
    const t = st.tables.find(x => x.exists) ?? st.tables[0], path = `${lake.storage.replace(/\/$/, '')}/${t.path}`, local = path.replace(/^file:(\/\/)?/, '');
    const door = k => lake.doors?.find(d => d.kind === k)?.address;
    const pg = door('postgres'), user = lake.doors?.find(d => d.kind === 'postgres')?.user, [host, port] = pg ? [pg.slice(0, pg.lastIndexOf(':')), pg.slice(pg.lastIndexOf(':') + 1)] : [];
    const way = (title, text, why) => {
      const copy = el('button.plain', {type: 'button', 'aria-label': `Copy: ${title}`, on: {click: async () => {
        try { await navigator.clipboard.writeText(text); copy.textContent = 'Copied'; } catch { copy.textContent = 'Select it'; getSelection().selectAllChildren(shown); }
        setTimeout(() => { copy.textContent = 'Copy'; }, 2000);
      }}}, 'Copy'), shown = el('pre.wrap', {tabindex: 0}, text);
      return section(title, why ? el('p.sub', why) : null, el('div.way', shown, copy));
    };
    const flight = door('flight');
    return [el('h1', 'Connect'), el('p.sub', `${t.name} is a Delta Lake table: whatever reads Delta reads it, history and live events together`),
      el('div.two',
        pg ? way('psql, and every tool that speaks PostgreSQL', `psql "host=${host} port=${port} user=${user} dbname=lake"`, `Tableau, Power BI, Superset and Grafana take the same host, port, user and database.`) : null,
        pg ? way('DBeaver, DataGrip and others with JDBC', `jdbc:postgresql://${pg}/lake`, `The user is ${user}.`) : null,
        pg ? way('Python: psycopg', `import psycopg\n\nwith psycopg.connect("host=${host} port=${port} user=${user} dbname=lake") as c:\n    print(c.execute("SELECT count(*) FROM ${t.name}").fetchone())`) : null,
        flight ? way('Python: Arrow Flight SQL', `from adbc_driver_flightsql import dbapi\n\nwith dbapi.connect("${flight}", autocommit=True) as c, c.cursor() as cur:\n    cur.execute("SELECT * FROM ${t.name}")\n    print(cur.fetch_arrow_table())`) : null,
        way('Command line', `cauce query "SELECT count(*) AS n FROM ${t.name}"`),
        way('Python: deltalake', `import deltalake\n\nt = deltalake.DeltaTable(${JSON.stringify(local)})\nprint(t.version(), t.to_pyarrow_dataset().count_rows())`),
        way('Python: DuckDB', `import duckdb\n\nduckdb.sql("INSTALL delta; LOAD delta")\nduckdb.sql("SELECT count(*) FROM delta_scan('${local.replaceAll("'", "''")}')").show()`),
        way('Apache Spark', `spark.read.format("delta").load(${JSON.stringify(local)}).count()`))];
  },
};

function rowsOf(c) {
  const m = c.metrics ?? {};
  for (const k of ['numOutputRows', 'numTargetRowsInserted']) if (m[k] !== undefined) return Number(m[k]) + (k === 'numTargetRowsInserted' ? Number(m.numTargetRowsUpdated ?? 0) : 0);
  return 0;
}

// A run's log grows in place, so that a reader who scrolls in it stays where he is; one who is at its end follows it.
let log = {};
const unfinished = s => s === 'running' || s === 'retrying';

async function logOf(run) {
  if (log.id !== run.id) {
    log = {id: run.id, next: 0, text: el('pre.log', {tabindex: 0, role: 'log', 'aria-label': 'log of the run'})};
    log.text.addEventListener('scroll', () => { log.top = log.text.scrollTop; });
  }
  const mine = log;
  await grow(mine);
  clearTimeout(mine.timer);
  if (unfinished(run.status)) mine.timer = setTimeout(() => follow(mine), 1000);
  return mine.text.textContent ? mine.text : empty('Nothing was logged.');
}

// grow appends what has been logged since, and gives the run's status.
async function grow(mine) {
  let more;
  do {
    more = await ask(`/api/runs/${encodeURIComponent(mine.id)}/log?from=${mine.next}`);
    if (more.begin < mine.next) break; // somebody else has appended it meanwhile
    if (mine.next === 0 && more.begin > 0) mine.text.append('…\n');
    const last = mine.text.scrollHeight - mine.text.scrollTop - mine.text.clientHeight < 30;
    mine.text.append(more.text);
    mine.next = more.next;
    if (last) mine.text.scrollTop = mine.text.scrollHeight;
  } while (more.text);
  return more.status;
}

// follow asks each second while the run goes on and its page is shown; the page as a whole is shown anew when it has ended.
async function follow(mine) {
  if (log !== mine || !location.pathname.startsWith('/runs/')) return;
  let status;
  try { status = await grow(mine); } catch { status = 'running'; } // the page says that the lake does not answer
  if (unfinished(status)) mine.timer = setTimeout(() => follow(mine), 1000);
  else show();
}

const took = r => !r.ended || r.ended.startsWith('0001') ? null : (new Date(r.ended) - new Date(r.started)) / 1000;
const shortly = s => s.toFixed(s < 1 ? 2 : 1);
const seconds = r => took(r) === null ? '–' : shortly(took(r));
const clip = (text, n) => text.length > n ? text.slice(0, n) + '…' : text;
const status = s => el(s === 'succeeded' || s === 'success' || s === 'ok' ? 'span.pill.good' : unfinished(s) ? 'span.pill' : 'span.pill.bad', s);

function difference(d) {
  const files = (title, list) => list.length ? el('details', {open: list.length <= 20}, el('summary', `${plural(list.length, 'file')} ${title}`), el('ul', list.slice(0, 200).map(f => el('li.mono', f.path, ` · ${number(f.rows)} rows`)))) : null;
  return el('div', {role: 'region', 'aria-label': 'difference'}, el('p', el('b', `Version ${d.from} → ${d.to}: `), `${number(d.rows_from)} → ${number(d.rows_to)} rows`),
    files('added', d.added), files('with rows marked as deleted', d.marked), files('removed', d.removed),
    d.columns.length ? el('p', 'columns: ', d.columns.join('; ')) : null,
    Object.keys(d.properties).length ? el('p', 'properties: ', Object.entries(d.properties).map(([k, v]) => `${k} = ${v || '(removed)'}`).join('; ')) : null,
    d.added.length + d.removed.length + d.marked.length + d.columns.length + Object.keys(d.properties).length ? null : el('p', 'no file, column or property differs'));
}

let notice = '', turn = 0, session = {};

function redirect(path) {
  history.replaceState(null, '', path);
  return route();
}

async function route() {
  const [page, rest] = location.pathname.slice(1).split('/');
  session = await ask('/api/session');
  who();
  if (!session.user) return login();
  if (!session.whole && page !== 'sql') return redirect('/sql');
  for (const a of document.querySelectorAll('nav a')) {
    const on = a.getAttribute('href') === '/' + page;
    a.hidden = !session.whole && a.getAttribute('href') !== '/sql';
    if (on) a.setAttribute('aria-current', 'page'); else a.removeAttribute('aria-current');
    if (on) document.title = `${a.textContent} · Cauce`;
  }
  return pages[page || 'lake'](rest === undefined ? undefined : decodeURIComponent(rest));
}

// who shows who has signed in, and the way out.
function who() {
  const at = document.getElementById('who');
  document.querySelector('nav').hidden = !session.user;
  if (at.dataset.user === (session.login ? session.user : '')) return;
  at.dataset.user = session.login ? session.user : '';
  at.replaceChildren(...session.login && session.user ? [session.user, ' ', el('button', {type: 'button', on: {click: async () => { await post('/api/logout'); location.reload(); }}}, 'Sign out')] : []);
}

// login asks who it is; the address stays, so that what was asked for is shown next.
let loginPage;
function login() {
  document.title = 'Sign in · Cauce';
  loginPage ??= (() => {
    const problem = el('p.problem', {role: 'alert'});
    return [el('h1', 'Sign in'), el('p.sub', 'with a role of the lake file'), el('section', {'aria-label': 'Sign in'}, el('form.login', {on: {submit: async e => {
      e.preventDefault();
      problem.textContent = '';
      try {
        await post('/api/login', {name: e.target.elements.name.value, password: e.target.elements.password.value});
        location.reload();
      } catch (x) { problem.textContent = x.message; e.target.elements.password.select(); }
    }}}, el('label', 'Role', el('input', {name: 'name', autocomplete: 'username', required: true, autocapitalize: 'none'})),
      el('label', 'Password', el('input', {name: 'password', type: 'password', autocomplete: 'current-password', required: true})), el('button', 'Sign in'), problem))];
  })();
  return loginPage;
}

// show fills the page anew and keeps what the reader was at: the scroll position, and where the keyboard is.
async function show(again = false) {
  const mine = ++turn;
  let content;
  // What a reader edits, or has asked for, is not asked for again by itself.
  if (again === true && location.pathname === '/sql' && main.dataset.address === location.href) return;
  try {
    content = await route();
    state.className = '';
    state.textContent = `as of ${new Date().toISOString().slice(11, 19)} UTC`;
  } catch (e) {
    state.className = 'bad';
    state.textContent = 'the lake does not answer';
    if (main.dataset.address === location.href) return; // what is shown stays, and the line above says that it is old
    content = [el('section.error', {role: 'alert'}, el('h2', 'This could not be shown'), e.message)];
  }
  if (mine !== turn) return;
  if (content.length === main.children.length && content.every((c, i) => c === main.children[i])) { main.dataset.address = location.href; return; }
  const busy = main.contains(document.activeElement) && document.activeElement !== main;
  const opened = [...main.querySelectorAll('details')].map(d => d.open);
  if (busy && main.dataset.address === location.href) return; // the reader is typing or walking through it
  const top = log.top ?? 0, end = !log.text?.isConnected || log.text.scrollHeight - top - log.text.clientHeight < 30;
  main.replaceChildren(...content.flat().filter(Boolean));
  if (log.text?.isConnected) log.text.scrollTop = end ? log.text.scrollHeight : top; // it was taken out of the page and put back
  [...main.querySelectorAll('details')].forEach((d, i) => { if (i in opened && main.dataset.address === location.href) d.open = opened[i]; });
  main.dataset.address = location.href;
}

function go(path) {
  notice = '';
  history.pushState(null, '', path);
  document.activeElement?.blur();
  show().then(() => { main.focus({preventScroll: true}); scrollTo(0, 0); });
}

document.addEventListener('click', e => {
  const a = e.target.closest('a');
  if (!a || a.origin !== location.origin || a.hash || a.hasAttribute('download') || e.ctrlKey || e.metaKey || e.shiftKey || e.button) return;
  e.preventDefault();
  go(a.pathname + a.search);
});
addEventListener('popstate', () => show());
setInterval(() => { if (!document.hidden) show(true); }, 5000);
show();
