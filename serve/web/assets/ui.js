// What the pages are made of: elements, numbers as people read them, grids, charts, and asking the lake. Texts are only ever
// set as text.

import uPlot from '/assets/lib/chart.js';

// el('td.n', {title: 'x'}, 'text', child …) makes an element.
export function el(what, ...rest) {
  const [tag, ...classes] = what.split('.');
  const e = document.createElement(tag);
  if (classes.length) e.className = classes.join(' ');
  for (const r of rest.flat(Infinity)) {
    if (r === null || r === undefined || r === false) continue;
    if (r instanceof Node || typeof r !== 'object') e.append(r instanceof Node ? r : String(r));
    else for (const [k, v] of Object.entries(r)) {
      if (k === 'on') for (const [name, f] of Object.entries(v)) e.addEventListener(name, f);
      else if (k === 'style') for (const [name, x] of Object.entries(v)) e.style.setProperty(name, x);
      else if (v === true) e.setAttribute(k, '');
      else if (v !== false && v !== undefined) e.setAttribute(k, v);
    }
  }
  return e;
}

export const number = n => n < 0 ? '?' : n.toLocaleString('en-US');
export const plural = (n, word) => `${number(n)} ${word}${n === 1 ? '' : 's'}`;
export function bytes(n) {
  for (const unit of ['B', 'kB', 'MB', 'GB']) {
    if (n < 1000) return `${n < 10 && unit !== 'B' ? n.toFixed(1) : Math.round(n)} ${unit}`;
    n /= 1000;
  }
  return `${n.toFixed(1)} TB`;
}
export const time = t => !t || t.startsWith('0001') ? '–' : t.replace('T', ' ').replace(/(\.\d+)?Z$/, '');
export function ago(t, now) {
  const s = (new Date(now) - new Date(t)) / 1000;
  if (!t || t.startsWith('0001')) return 'never';
  if (s < 2) return 'now';
  if (s < 120) return `${Math.round(s)} s ago`;
  if (s < 7200) return `${Math.round(s / 60)} min ago`;
  if (s < 172800) return `${Math.round(s / 3600)} h ago`;
  return `${Math.round(s / 86400)} days ago`;
}

export async function ask(path, options = {}) {
  const r = await fetch(path, {headers: {Accept: 'application/json'}, ...options});
  const body = await r.json();
  if (!r.ok) throw Object.assign(new Error(body.error), {status: r.status, code: body.code, hint: body.hint, position: body.position});
  return body;
}

export const section = (title, ...children) => el('section', {'aria-label': title}, el('h2', title), ...children);
export const empty = text => el('p.empty', text);
export const figure = (label, value, small) => el('div', el('div.t', label), el('div.v', value), small ? el('div.s', small) : null);
export const figures = (...list) => el('div.figures', ...list);

// grid makes a table; a column is a name, with a '>' before it if it holds numbers; one of times says its zone.
export function grid(columns, rows, label) {
  const right = columns.map(c => c.startsWith('>')), when = columns.map(c => c.endsWith('(UTC)'));
  return el('div.scroll', {tabindex: 0, role: 'region', 'aria-label': label},
    el('table', el('thead', el('tr', columns.map((c, i) => el(right[i] ? 'th.n' : 'th', {scope: 'col'}, c.replace(/^>/, ''))))),
      el('tbody', rows.map(r => el('tr', r.map((v, i) => v instanceof HTMLTableCellElement ? v : el(right[i] ? 'td.n' : when[i] ? 'td.when' : 'td', v)))))));
}

export const nil = () => el('td.nil', 'null');
export const link = (href, text) => el('a', {href}, text);

// plot draws series over x with uPlot: x are numbers, or texts that name places in order. Each series is {name, values}.
export function plot(x, series, {what, kind = 'bars', time = false}) {
  const labels = !time && x.some(v => typeof v !== 'number') ? x : null, axisLabels = labels && brief(labels);
  const holder = el(series.length > 1 ? 'div.plot' : 'div.plot.single', {role: 'img', 'aria-label': what});
  const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  let chart;
  const draw = () => {
    const ink = colour('--faint'), line = colour('--line'), colours = ['--water', '--warn', '--good', '--bad'].map(colour);
    const axis = {stroke: ink, grid: {stroke: line, width: 1}, ticks: {stroke: line, width: 1}};
    chart = new uPlot({
      width: holder.clientWidth, height: 190, tzDate: ts => uPlot.tzDate(new Date(ts * 1e3), 'UTC'), cursor: {y: false, drag: {x: true, y: false}}, legend: {live: holder.clientWidth > 500},
      scales: {x: {time, range: (u, lo, hi) => lo === hi ? [lo - (time ? 1800 : 1), hi + (time ? 1800 : 1)] : kind === 'bars' ? [lo - (hi - lo) / x.length / 2, hi + (hi - lo) / x.length / 2] : [lo, hi]}, y: {range: (u, lo, hi) => kind === 'bars' ? [Math.min(0, lo), Math.max(1.08 * hi, hi > 0 ? 0 : 1)] : lo === hi ? [lo - 1, hi + 1] : [lo, hi]}},
      series: [labels ? {label: 'at', value: (u, i) => labels[i] ?? '–'} : {label: 'at', value: time ? (u, v) => v === null ? '–' : new Date(v * 1e3).toISOString().slice(0, 19).replace('T', ' ') : undefined}, ...series.map((s, i) => ({
        label: s.name, stroke: colours[i % 4], width: kind === 'bars' ? 0 : 1.5, fill: kind === 'bars' ? colours[i % 4] : undefined,
        paths: kind === 'bars' ? uPlot.paths.bars({size: [0.8, 60]}) : undefined, points: {show: kind !== 'bars' && (kind === 'points' || x.length < 40), size: 5},
        value: (u, v) => v === null || v === undefined ? '–' : v.toLocaleString('en-US'),
      }))],
      axes: [labels ? {...axis, splits: u => labels.length < 2 ? [0] : [...labels.keys()].filter(k => k % Math.ceil(labels.length * 110 / u.width) === 0), values: (u, at) => at.map(k => shorten(axisLabels[k], 14))} : time ? {...axis, values: moments} : axis,
        {...axis, size: (u, values) => 18 + 7.2 * Math.max(3, ...(values ?? []).map(v => v.length)), values: (u, at) => at.map(v => v.toLocaleString('en-US', {notation: Math.abs(v) >= 1e5 ? 'compact' : 'standard', maximumFractionDigits: 6}))}],
    }, [labels ? [...labels.keys()] : x, ...series.map(s => s.values)], holder);
  };
  // The width is known once the chart stands in the page; when it is taken out of it, uPlot must let go of the window.
  const size = new ResizeObserver(() => {
    if (!holder.isConnected) {
      if (chart) { chart.destroy(); size.disconnect(); } // else it does not stand in the page yet
    } else if (!chart) draw();
    else if (chart.width !== holder.clientWidth) chart.setSize({width: holder.clientWidth, height: 190});
  });
  size.observe(holder);
  return el('figure', holder, el('figcaption.sub', what));
}

// moments writes the times of an axis in UTC: with the day where it begins, with seconds where they matter.
function moments(u, at) {
  const span = u.scales.x.max - u.scales.x.min;
  let day = '';
  return at.map(v => {
    const iso = new Date(v * 1e3).toISOString(), date = iso.slice(0, 10), clock = iso.slice(11, span < 600 ? 19 : 16);
    if (span > 6 * 86400) return clock === '00:00' ? date : ''; // there is room for one a day
    const text = date === day ? clock : `${clock}\n${date}`;
    day = date;
    return text;
  });
}

// brief leaves out of moments what an axis has no room for: the day if all are of one, else the year and the seconds.
function brief(labels) {
  if (!labels.every(l => /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$/.test(l))) return labels;
  return labels.map(labels.every(l => l.startsWith(labels[0].slice(0, 10))) ? l => l.slice(11) : l => l.slice(5, 16));
}

const shorten = (text, n) => text === null || text === undefined ? 'null' : text.length > n ? text.slice(0, n - 1) + '…' : text;

// bars draws the values of things in order, such as commits.
export const bars = (values, labels, what) => plot(labels, [{name: 'rows', values}], {what: `${what}; highest ${number(Math.max(...values, 0))}; ${labels[0] ?? ''} to ${labels.at(-1) ?? ''}`});

export const query = () => new URLSearchParams(location.search);

// form shows fields whose values become the query of the address.
export function form(fields, button, go) {
  const q = query();
  return el('form.ask', {on: {submit: e => {
    e.preventDefault();
    const next = new URLSearchParams();
    for (const [k, v] of new FormData(e.target)) if (v !== '') next.set(k, v);
    go(location.pathname + (next.size ? '?' + next : ''));
  }}}, fields.map(f => el('label', f.label, f.options
    ? el('select', {name: f.name}, f.options.map(o => Array.isArray(o) ? o : [o, o || 'all']).map(([value, text]) => el('option', {value, selected: (q.get(f.name) ?? '') === value}, text)))
    : el('input', {name: f.name, type: f.type ?? 'text', min: 0, value: q.get(f.name) ?? '', placeholder: f.placeholder ?? ''}))),
    el('button', button));
}

// post sends a change.
export const post = (path, body = {}) => ask(path, {method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify(body)});
