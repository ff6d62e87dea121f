'use strict';
// Reads a lake that is being written through node-postgres. NODE_PATH names the folder of its packages.
// usage: node drivers.cjs HOST PORT EXPECTED.json; EXPECTED is as for drivers.py.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const pg = require('pg');
const { version } = require('pg/package.json');

const [host, port, file] = process.argv.slice(2);
const expected = JSON.parse(fs.readFileSync(file, 'utf8'));
const options = { host, port: Number(port), user: 'reader', database: 'lake' };
const COLUMNS = 'event_id, symbol, trade_id, price, event_time, is_buyer_maker, event_date';
const HISTORY = `SELECT ${COLUMNS} FROM unified_events WHERE source = 'batch' AND trade_id <= $1 ORDER BY trade_id`;
// What the driver makes of each type: a 64-bit integer and a numeric stay texts, a time is a Date.
const want = expected.rows.map(([id, symbol, trade, price, at, maker, date]) => [id, symbol, String(trade), price, new Date(at), maker, date]);
pg.types.setTypeParser(pg.types.builtins.DATE, (v) => v); // else midnight of the machine's zone

const fails = async (client, sql, code) => {
  await assert.rejects(client.query(sql), (e) => e.code === code || assert.fail(`${sql}: ${e.code} ${e.message}`));
};

async function main() {
  const client = new pg.Client(options);
  await client.connect();
  const { rows, fields } = await client.query({ text: HISTORY, values: [expected.last], rowMode: 'array' });
  assert.deepEqual(rows, want);
  assert.deepEqual(fields.map((f) => f.dataTypeID), [25, 25, 20, 1700, 1184, 16, 1082]);
  for (let i = 0; i < 3; i++) { // a statement with a name is parsed once
    const named = await client.query({ name: 'history', text: HISTORY, values: [expected.last], rowMode: 'array' });
    assert.deepEqual(named.rows, want);
  }
  const objects = await client.query(HISTORY, [1]);
  assert.deepEqual(objects.rows, [Object.fromEntries(COLUMNS.split(', ').map((c, i) => [c, want[0][i]]))]);
  assert.equal(objects.command, 'SELECT');
  assert.equal(objects.rowCount, 1);
  const several = await client.query("SELECT 1 AS a; SELECT 'b' AS b");
  assert.deepEqual(several.map((r) => r.rows), [[{ a: 1 }], [{ b: 'b' }]]);

  const first = want[0];
  const one = async (where, ...values) => {
    const r = await client.query(`SELECT count(*)::int AS n FROM unified_events WHERE event_id = $1 AND ${where}`, [first[0], ...values]);
    assert.equal(r.rows[0].n, 1, where);
  };
  await one('event_time = $2', first[4]);
  await one('price = $2', first[3]);
  await one('is_buyer_maker = $2', first[5]);
  await one('event_date = $2', first[6]);
  await one('trade_id = $2', 1);
  await one('symbol = ANY ($2)', [first[1], 'quo"ted', 'com,ma', null]);
  await one('$2::text IS NULL', null);
  assert.deepEqual((await client.query("SELECT ARRAY['a', NULL, 'b c'] AS t, ARRAY[1, 2] AS i, {'k': 1} AS j, '\\x00ff'::bytea AS b")).rows,
    [{ t: ['a', null, 'b c'], i: [1, 2], j: { k: 1 }, b: Buffer.from([0, 255]) }]);

  await fails(client, 'SELECT * FROM nosuch', '42P01');
  await fails(client, 'SELECT nosuch FROM unified_events', '42703');
  await fails(client, 'UPDATE unified_events SET price = 1', '25006');
  await client.query("SET statement_timeout = '300ms'");
  await fails(client, 'SELECT count(*) FROM range(100000000000) a, range(100000000000) b', '57014');
  await client.query('RESET statement_timeout');

  const counts = [];
  for (let i = 0; i < 5; i++) { // one version in a transaction, later ones afterwards
    await client.query('BEGIN');
    const n = (await client.query('SELECT count(*) FROM unified_events')).rows[0].count;
    assert.equal((await client.query('SELECT count(*) FROM unified_events')).rows[0].count, n);
    await client.query('COMMIT');
    counts.push(Number(n));
  }
  assert.deepEqual(counts, counts.toSorted((a, b) => a - b));
  await client.end();

  const binary = new pg.Client({ ...options, binary: true });
  await binary.connect();
  // The driver takes binary values for text before it reads them, so those with bytes above 127 are lost, and of rows as
  // arrays it reads none: objects, and values that survive.
  const bin = await binary.query(`SELECT event_id, trade_id::int AS trade_id, is_buyer_maker FROM unified_events WHERE source = 'batch' AND trade_id <= $1 ORDER BY trade_id`, [100]);
  assert.deepEqual(bin.rows.map((r) => [r.event_id, r.trade_id, r.is_buyer_maker]), want.slice(0, 100).map((r) => [r[0], Number(r[2]), r[5]]));
  await binary.end();

  const pool = new pg.Pool({ ...options, max: 4 });
  const answers = await Promise.all(Array.from({ length: 20 }, (_, i) => pool.query(HISTORY.replace('<=', '='), [i + 1])));
  assert.deepEqual(answers.map((r) => r.rows[0].event_id), want.slice(0, 20).map((r) => r[0]));
  await pool.end();
  console.log(`${want.length} rows by node-postgres ${version}; ${counts[0]} to ${counts.at(-1)} rows while the stream wrote`);
}

main().catch((e) => {
  console.error(e);
  process.exit(1);
});
