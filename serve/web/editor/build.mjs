// Bundles the libraries of the pages into ../assets/lib, with the licences of all that is in them.
import {copyFileSync, existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync} from 'node:fs';
import {createHash} from 'node:crypto';
import {build} from 'esbuild';

const out = '../assets/lib';
mkdirSync(out, {recursive: true});
const {metafile} = await build({
  entryPoints: ['editor.mjs', 'chart.mjs'], outdir: out, bundle: true, minify: true, format: 'esm', target: 'es2022', legalComments: 'none', metafile: true,
});
copyFileSync('node_modules/uplot/dist/uPlot.min.css', `${out}/chart.css`);
const packages = new Set(Object.keys(metafile.inputs).flatMap(p => p.match(/^node_modules\/((?:@[^/]+\/)?[^/]+)\//)?.[1] ?? []));
const texts = [...packages].sort().map(name => {
  const dir = `node_modules/${name}`, about = JSON.parse(readFileSync(`${dir}/package.json`));
  const file = readdirSync(dir).find(f => /^licen[cs]e/i.test(f));
  if (!file || !existsSync(`${dir}/${file}`)) throw new Error(`${name} has no licence file`);
  return `${name} ${about.version} (${about.license})\n\n${readFileSync(`${dir}/${file}`, 'utf8').trim()}\n`;
});
writeFileSync(`${out}/LICENSES.txt`, 'The files of this folder are made of these packages.\n\n' + texts.join('\n' + '-'.repeat(80) + '\n\n'));

// What the bundles were made of, so that a test can tell when they are old.
const sources = ['build.mjs', 'chart.mjs', 'editor.mjs', 'package-lock.json', 'package.json'];
writeFileSync(`${out}/SOURCES.sha256`, sources.map(f => `${createHash('sha256').update(readFileSync(f)).digest('hex')}  ${f}\n`).join(''));
